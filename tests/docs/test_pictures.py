"""Pictures of the pages are there and have words for readers without eyes; the gallery has ten."""

import re
from pathlib import Path

import pytest

from tests.docs.test_blocks import DOCS, name_of

PICTURE = re.compile(r"^```\{image\} (?P<path>\S+)\n(?P<options>(?::.*\n)*)```$", re.MULTILINE)
GALLERY = DOCS / "results" / "gallery.md"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
PAGES = [page for page in PAGES if "{image}" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_exist_and_have_words(page: Path) -> None:
    text = page.read_text()
    pictures = list(PICTURE.finditer(text))
    assert len(pictures) == text.count("{image}")
    for picture in pictures:
        assert (page.parent / picture["path"]).is_file(), picture["path"]
        words = re.search(r"^:alt: (.+)$", picture["options"], re.MULTILINE)
        assert words, picture["path"]
        assert len(words[1]) > 15, picture["path"]


def test_the_gallery_has_ten_pictures_each_below_a_command() -> None:
    sections = GALLERY.read_text().split("\n## ")[1:]
    assert sum(len(PICTURE.findall(section)) for section in sections) >= 10
    for section in sections:
        command = section.find("```shell\n")
        assert 0 <= command < section.find("```{image}"), section.splitlines()[0]

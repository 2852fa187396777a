"""Links of Markdown, and paths of pages in code and YAML, lead to files and headings that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "configs", "runs", "examples", "learned_opt", "tasks", "tests")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md")),
    ]
)
SOURCES = sorted(
    path
    for folder in FOLDERS
    for suffix in ("*.py", "*.yaml", "*.cpp", "*.md")
    for path in (ROOT / folder).rglob(suffix)
)
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
PATH_OF_A_PAGE = re.compile(r"\bdocs/[\w./-]+\.(?:md|png|svg)(?:#[\w-]+)?")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def is_written_by_hand(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return parts[0] != "runs" or parts == ("runs", "README.md")


PAGES = [page for page in PAGES if is_written_by_hand(page) and "_build" not in page.parts]
SOURCES = [path for path in SOURCES if is_written_by_hand(path) and "_build" not in path.parts]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Headings as GitHub and MyST name them, and explicit targets."""
    text = FENCE.sub("", page.read_text())
    names = set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        names.add(words.replace(" ", "-"))
    return frozenset(names)


def fault(target: Path, anchor: str) -> str | None:
    if not target.exists():
        return f"{target} does not exist"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{target} has no heading #{anchor}"
    return None


def links(page: Path) -> list[tuple[Path, str]]:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    local = [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    targets = []
    for link in local:
        path, _, anchor = link.partition("#")
        targets.append(((page.parent / path).resolve() if path else page, anchor))
    return targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page) -> None:
    faults = [fault(target, anchor) for target, anchor in links(page)]
    assert [text for text in faults if text] == []


def test_paths_of_pages_that_code_and_configs_name_exist() -> None:
    faults = []
    for source in SOURCES:
        for named in PATH_OF_A_PAGE.findall(source.read_text()):
            path, _, anchor = named.partition("#")
            text = fault(ROOT / path, anchor)
            if text:
                faults.append(f"{source.relative_to(ROOT)}: {text}")
    assert faults == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n[a](page.md#a-title) [b](page.md#none) [c](none.md)\n")
    faults = [fault(target, anchor) for target, anchor in links(page)]
    assert faults[0] is None
    assert all(faults[1:])

"""Every entry of the log opens with its date, question, answer and command."""

import re

import pytest

from tests.docs.test_blocks import DOCS

TOPICS = sorted(page for page in (DOCS / "log").glob("*.md") if page.stem != "index")
OPENING = re.compile(
    r"""\n\*20\d\d-\d\d-\d\d\*
\n- \*\*Question:\*\* .+\?
(?:  .+\n)*- \*\*Answer:\*\* .+
(?:  .+\n)*- \*\*Command:\*\* .+\n"""
)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda page: page.stem)
def test_entries_open_with_question_answer_and_command(topic) -> None:
    entries = re.split(r"^## ", topic.read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        title, _, text = entry.partition("\n")
        assert OPENING.match(text), title

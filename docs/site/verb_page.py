"""Writes the list of verbs and their examples from what ``--help`` prints."""

from pathlib import Path

from learned_opt.commands.examples import EXAMPLES, PROGRAM
from learned_opt.commands.help_pages import VERBS


def text() -> str:
    """A table of the verbs, then five command lines of each."""
    lines = ["| verb | what it does |", "| --- | --- |"]
    lines += [f"| `{verb}` | {purpose} |" for verb, purpose in VERBS.items()]
    for verb, examples in EXAMPLES.items():
        lines += ["", f"## {verb}", ""]
        lines += [f"    {PROGRAM} {words}" for words in examples]
    return "\n".join([*lines, ""])


def write(path: Path) -> None:
    """Write the page, unless it is the same."""
    if not path.exists() or path.read_text() != text():
        path.write_text(text())

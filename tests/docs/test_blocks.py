"""Every Python block of the documentation runs, and every shell block is a command that there is.

A block that does not run has ``% not run: REASON`` in the line before it. Commands of the program
are composed in the place of being run; those whose verb has no config are parsed as far as a test
without a run folder can. A block whose first line is ``# FOLDER/FILE`` is that file, which commands
with ``--config-dir`` read.
"""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from learned_opt.commands.help_pages import CONFIGS, VERBS
from tests.compose.test_configs import composed

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:^% not run: (?P<reason>.+)\n)?"
    r"^```(?P<language>python|yaml|shell|bash)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PROGRAM = ["python", "-m", "learned_opt"]
# a block by its indentation, which has no language and no line for a reason
INDENTED = re.compile(r"^ {4,}(?:python|pip|learned-opt|import|from) .*$", re.MULTILINE)
FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# notes of what was run then; made from the examples of commands, which tests/commands check
UNCHECKED = ("log/", "reference/verbs.md", "reference/command-line.md")


class Block(NamedTuple):
    language: str
    code: str
    reason: str | None


def blocks(page: Path, *languages: str) -> list[Block]:
    matches = []
    for match in BLOCK.finditer(page.read_text()):
        if match["language"] in languages:
            matches.append(Block(match["language"], match["code"], match["reason"]))
    return matches


def pages(*languages: str) -> list[Path]:
    written = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
    return [page for page in written if blocks(page, *languages)]


def write_files(page: Path, folder: Path) -> list[Path]:
    """The files that a page tells its reader to write."""
    written = []
    for block in blocks(page, "python", "yaml"):
        if named := FILE.match(block.code):
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code[named.end() :])
            written.append(path)
    return written


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS))


def test_code_stands_in_blocks_that_are_checked() -> None:
    indented = {}
    for page in sorted(DOCS.rglob("*.md")):
        if "_build" not in page.parts and not name_of(page).startswith(UNCHECKED):
            lines = INDENTED.findall(FENCED.sub("", page.read_text()))
            indented |= {name_of(page): lines} if lines else {}
    assert indented == {}


@pytest.mark.parametrize("page", pages("python"), ids=name_of)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*pin_memory.*")  # of other trainers
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in blocks(page, "python"):
        if block.reason is None:
            exec(compile(block.code, str(page), "exec"), namespace)


def command_lines(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line]


def without_sweep(word: str) -> str:
    return word if "[" in word or "{" in word else word.split(",")[0]


def check_program(words: list[str], folder: Path) -> None:
    """Compose what a verb with a config would run."""
    verb = words[0] if words and words[0] in VERBS else "train"
    rest = words[1:] if words and words[0] == verb else words
    if " ".join([verb, *rest[:1]]) in CONFIGS:
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    reads_runs = rest[:1] == ["table"]
    if verb not in CONFIGS or not rest or reads_runs:
        return

    overrides = [without_sweep(word) for word in rest if "=" in word]
    if "--config-dir" in rest:
        overrides.append(f"hydra.searchpath=[file://{folder}/configs]")
    assert composed(*overrides, name=CONFIGS[verb])


def check(words: list[str], folder: Path) -> None:
    if words[:3] == PROGRAM:
        check_program(words[3:], folder)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), words
    else:
        assert words[0] == "python", words
        assert (ROOT / words[1]).is_file(), words


@pytest.mark.parametrize("page", pages("shell", "bash"), ids=name_of)
def test_commands_of_a_page_are_there(page, tmp_path) -> None:
    write_files(page, tmp_path)
    for block in blocks(page, "shell", "bash"):
        if block.reason is None:
            for words in command_lines(block.code):
                check(words, tmp_path)


def test_a_key_that_there_is_not_is_seen(tmp_path) -> None:
    with pytest.raises(Exception, match="no_such_key"):
        check([*PROGRAM, "+task=mlp", "no_such_key=1"], tmp_path)

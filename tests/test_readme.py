"""The README stays short, has a picture and the two commands, and what it shows works."""

import re
import shlex
from pathlib import Path

import pytest

from tests.compose.test_configs import composed

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(
    r"^    python -m learned_opt(?: ([a-z]+))? (.*?\S)(?:\s+#.*)?$", README, re.MULTILINE
)
INSTALL = "    python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
SET_UP = (  # people copy them whole
    INSTALL + ". && .venv/bin/python -m learned_opt +task=mlp",
    INSTALL + "'.[dev]' && .venv/bin/python -m pytest",
)


def test_it_is_short_and_narrow() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100 and line not in SET_UP] == []


def test_it_has_the_two_commands() -> None:
    assert set(SET_UP) <= set(README.splitlines())


def test_it_has_a_picture() -> None:
    pictures = re.findall(r"!\[(.+?)\]\((\S+?)\)", README)
    assert pictures
    for text, path in pictures:
        assert len(text) > 10  # what a reader without eyes gets
        assert (Path(__file__).parents[1] / path).is_file()


def test_its_figures_are_those_of_the_results() -> None:
    results = (Path(__file__).parents[1] / "docs" / "results" / "index.md").read_text()
    figures = re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", README)
    assert len(figures) >= 3
    assert [figure for figure in figures if figure not in results] == []


def test_its_python_runs(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)  # one of them keeps a run
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


@pytest.mark.parametrize(
    ("verb", "arguments"), [c for c in COMMANDS if c[1].strip().startswith(("+", "-m"))]
)
def test_its_commands_compose(verb, arguments) -> None:
    overrides = [
        word.split(",")[0] if "[" not in word else word
        for word in shlex.split(arguments)
        if word != "-m"
    ]
    assert {"task", "mix"} & set(composed(*overrides, name=verb or "config"))


def test_the_table_of_the_four_settings_is_that_of_the_log() -> None:
    docs = Path(__file__).parents[1] / "docs"
    results = (docs / "results" / "index.md").read_text()
    table = results.split("## The UNF paper's four settings")[1].split("\n## ")[0]
    log = (docs / "log" / "four-settings.md").read_text()
    figures = re.findall(r"[\d.]+ \[[\d.]+, [\d.]+\]", table)
    assert len(figures) > 30
    assert [figure for figure in figures if figure not in log] == []

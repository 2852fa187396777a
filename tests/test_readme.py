"""The README's Python runs, its commands compose, and it stays short."""

import re
import shlex
from pathlib import Path

import pytest

from tests.compose.test_configs import composed

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(
    r"^    python -m learned_opt(?: ([a-z]+))? (.*?\S)(?:\s+#.*)?$", README, re.MULTILINE
)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


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

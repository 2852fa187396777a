"""Examples in docstrings run and give what they say.

Only modules with an example are imported, so that optional extras are not needed.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_with_examples() -> list[str]:
    names = []
    for package in ("learned_opt", "tasks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                names.append(".".join(parts).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example that writes a file leaves none in the checkout
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_package_with_public_functions_has_examples() -> None:
    packages = {name.rpartition(".")[0] for name in modules_with_examples()}
    assert packages >= {"learned_opt.core", "learned_opt.symmetry", "learned_opt.unf"}

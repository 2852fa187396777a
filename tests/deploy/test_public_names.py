"""The names of ``import learned_opt``: found at their first use, torch not before."""

import subprocess
import sys

import pytest

import learned_opt


@pytest.mark.parametrize("name", learned_opt.PUBLIC_NAMES)
def test_every_public_name_is_there(name) -> None:
    assert getattr(learned_opt, name).__name__ == name
    assert getattr(learned_opt, name).__module__ == learned_opt.PUBLIC_NAMES[name]
    assert name in dir(learned_opt)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'learned_opt' has no attribute 'Nothing'"):
        _ = learned_opt.Nothing


def test_torch_comes_with_the_first_name_and_modules_of_deploy_in_any_order() -> None:
    """In one new process; no circle: each module is imported before the others."""
    modules = ("parity", "pretrained", "weight_space", "block_step", "weights", "optimizer")
    program = """
import importlib
import sys
import learned_opt
assert "torch" not in sys.modules
learned_opt.PermutationSpec
assert "torch" in sys.modules
for first in {modules}:
    for name in [name for name in sys.modules if name.startswith("learned_opt.deploy")]:
        del sys.modules[name]
    importlib.import_module("learned_opt.deploy." + first)
"""
    subprocess.run([sys.executable, "-c", program.format(modules=modules)], check=True)

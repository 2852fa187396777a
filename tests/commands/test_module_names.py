"""Commands as they were once written, ``python -m learned_opt.evaluate``, name the verb."""

import subprocess
import sys

import pytest

from learned_opt.commands import module_names
from tests.commands.test_front_door import ROOT

PYTHON = "/usr/bin/python"


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["-m", "learned_opt.evaluate", "+task=mlp"], "evaluate"),
        (["-u", "-W", "error", "-m", "learned_opt.replay", "x.yaml"], "replay"),
        (["-um", "learned_opt.bench_networks"], "bench networks"),
        (["-mlearned_opt.commands.bench_deploy"], "bench deploy"),
        (["-m", "learned_opt.suite"], "evaluate"),
        (["-m", "learned_opt.train"], "train"),
    ],
)
def test_old_names_are_one_sentence(capsys, words, verb) -> None:
    with pytest.raises(SystemExit) as stop:
        module_names.refuse_module([PYTHON, *words])
    assert stop.value.code == 2
    assert f"write: python -m learned_opt {verb}, then the same words." in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "learned_opt", "learned_opt.evaluate"],
        ["-m", "learned_opt.__main__"],
        ["-m", "pytest", "-m", "learned_opt.evaluate"],
        ["script.py", "-m", "learned_opt.evaluate"],
        ["-X", "dev", "-c", "import learned_opt"],
        [],
    ],
)
def test_all_else_is_left_alone(words, capsys) -> None:
    module_names.refuse_module([PYTHON, *words])  # else SystemExit
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("module", ["learned_opt.replay", "learned_opt.commands.cli"])
def test_python_says_it(tmp_path, module) -> None:
    command = [sys.executable, "-m", module, "x"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"learned_opt: {module} is no command; ")
    assert result.stderr.count("\n") == 1

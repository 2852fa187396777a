"""The files that pages tell people to write are a folder that the program takes."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_blocks import DOCS, PROGRAM, ROOT, blocks, command_lines, write_files
from tests.helpers.commands import run_here

EXTEND = DOCS / "how-to" / "extend.md"
PAGES = (EXTEND, DOCS / "tutorials" / "own-optimizer.md")
TINY = [
    *("trainer.max_steps=2", "horizon=4", "estimator.unroll_length=2", "compile=false"),
    *("benchmark.num_seeds=2", "benchmark.num_lrs=2", "benchmark.num_tuning_seeds=1"),
    *("benchmark.archive=null", "hydra.run.dir=run"),
]
KINDS = ("network", "data", "meta_optimizer", "estimator", "callbacks")


def forget_modules() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "mylab":
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """Of a reader, whose modules are forgotten behind the test."""
    shutil.copy(ROOT / "examples" / "outside" / "flowers.csv", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_modules()
    yield tmp_path
    forget_modules()


def commands(page: Path) -> list[list[str]]:
    """Trainings with choices of the page's reader."""
    trainings = []
    for block in blocks(page, "shell"):
        lines = command_lines(block.code)
        trainings += [words[3:] for words in lines if words[:4] == [*PROGRAM, "--config-dir"]]
    return trainings


def test_every_kind_has_a_section_with_a_file_and_a_command(tmp_path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in write_files(EXTEND, tmp_path)}
    typed = " ".join(" ".join(words) for words in commands(EXTEND))
    for group in (*KINDS, "task"):
        names = [re.match(rf"configs/{group}/(\w+)\.yaml", path) for path in written]
        for name in [match[1] for match in names if match]:
            assert name in typed or name == "iris"
        assert any(names), group


def test_all_of_them_go_together(folder) -> None:
    write_files(EXTEND, folder)
    choices = [
        *("+task=mlp", "data=stripes", "network=sines", "meta_optimizer=scaled_steps"),
        *("estimator=fading", "callbacks=[default,clock]", "benchmark.baselines={}"),
        "+meta_optimizer@benchmark.baselines.signed=signed_step",
    ]
    result = run_here(folder, "--config-dir", "configs", *choices, *TINY)
    assert result.returncode == 0, result.stderr
    assert "scaled_steps, theta has 2 parameters" in result.stdout
    assert "data stripes" in result.stdout
    assert re.search(r"^signed ", result.stdout, re.MULTILINE)
    assert "seconds/clock" in (folder / "run" / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_trains(page, folder) -> None:
    write_files(page, folder)
    typed = [*commands(page), ["--config-dir", "configs", "+task=iris"]]
    for words in typed if page == EXTEND else typed[:-1]:
        shutil.rmtree(folder / "run", ignore_errors=True)
        result = run_here(folder, *words, *TINY, "benchmark=none")
        assert result.returncode == 0, (words, result.stderr)

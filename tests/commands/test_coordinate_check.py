"""``python -m learned_opt coordinate-check``, as people run it."""

import json
import sys
from pathlib import Path

import pytest

from learned_opt.commands import coordinate_check
from tests.commands.test_cli import refused

TINY = ["+task=mlp", "network.hidden_sizes=[8,8]", "widths=[8,32]", "meta_optimizer=adam"]
TINY += ["seeds=2", "steps=2", "task.batch_size=16", "hydra.run.dir=run"]


def command(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt.commands.coordinate_check", *words])
    coordinate_check.main()


@pytest.mark.usefixtures("real_pictures")
def test_slopes_a_picture_and_the_exit_code(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, *TINY, "limit=5")
    shown = capsys.readouterr().out
    assert "adam on mlp, parametrisation mup" in shown
    assert "layers.2.weight" in shown
    content = json.loads(Path("run/coordinate_check.json").read_text())
    assert [slope["layer"] for slope in content["slopes"]] == [
        f"layers.{i}.weight" for i in range(3)
    ]
    assert list(content["changes"]) == ["8", "32"]
    assert Path("run/coordinate_check.png").stat().st_size > 1000
    assert "| layer |" in Path("run/coordinate_check.md").read_text()

    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *TINY, "limit=1e-6")
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "adam does not carry over: the slope of layers.0.weight" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("widths=[64]", "widths must be a list of 2 or more increasing whole numbers"),
        ("widths=[64,32]", "widths must be a list of 2 or more increasing whole numbers"),
        ("grows=[depth]", "grows must name keys of the network that grow with the width"),
        ("seeds=0", "seeds must be a whole number from 1 on, got 0"),
        ("parametrisation.base_width=0", "base_width must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, word, sentence) -> None:
    words = [other for other in TINY if other.split("=")[0] != word.split("=")[0]]
    message = refused(monkeypatch, capsys, tmp_path, coordinate_check.main, *words, word)
    assert sentence in message

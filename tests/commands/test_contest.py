"""Contest of networks: figures, and the command."""

import json
import sys

import pytest

from learned_opt.commands import contest as command
from learned_opt.evaluation import contest
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting import contest_report
from tests.cases import FAMILIES, spec_of
from tests.helpers.made_folders import only_folder_of


def test_each_network_is_trained_at_its_best_learning_rate() -> None:
    families = {name: FAMILIES[name]() for name in ("mlp", "quadratic_mlp")}
    benchmark = Benchmark(8, 3, 3, {"sgdm": make_sgdm, "adam": make_adam}, 1e-6, 1e-1, 2, 1)
    pairs = {name: (family, spec_of(family)) for name, family in families.items()}
    rows = contest.contest(pairs, benchmark, False, "cpu")
    again = contest.contest({"mlp": pairs["mlp"]}, benchmark, False, "cpu")
    assert [row["network"] for row in rows] == ["mlp", "quadratic_mlp"]
    assert rows[0]["final_loss"] == pytest.approx(
        again[0]["final_loss"]
    )  # seeds do not depend on the company
    assert [row["parameters"] for row in rows] == [
        32 * 5 + 5 + 5 * 3 + 3,
        3 * (32 * 5 + 5) + 5 * 3 + 3,
    ]
    assert {row["lr"] for row in rows} == {1e-1}
    assert all(len(row[figure]) == 3 for row in rows for figure in contest.FIGURES)
    shown = contest_report.summarise(
        [{**rows[0], "accuracy": [0.5, 0.6]}, {**rows[1], "accuracy": [0.4, 0.5]}]
    )
    assert shown[0]["accuracy - first"] == "-"
    assert shown[1]["accuracy - first"] == "-0.1000 [-0.1000, -0.1000]"


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [
        "compile=false",
        "horizon=3",
        "benchmark.num_lrs=2",
        "benchmark.num_seeds=2",
        "benchmark.num_chains=2",
    ]
    monkeypatch.setattr(sys, "argv", ["contest", "+task=mlp", "+networks.plain=${network}", *tiny])
    command.main()
    assert "accuracy" in capsys.readouterr().out
    folder = only_folder_of(tmp_path / "runs/mlp-contest")
    (row,) = json.loads((folder / "contest.json").read_text())["rows"]
    assert row["network"] == "plain"
    assert "| plain |" in (folder / "contest.md").read_text()
    monkeypatch.setattr(sys, "argv", ["contest", "+task=mlp"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert "networks is empty; choose an experiment that lists some." in capsys.readouterr().err

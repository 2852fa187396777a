"""Whole runs of ``+debug=quick``, ``+debug=profile`` and ``benchmark=none``."""

import csv
import gzip
import json
import sys
from pathlib import Path

import pytest

from learned_opt.commands import collect, evaluate, train
from learned_opt.evaluation.results import read_evaluation
from learned_opt.runtime import job_file
from learned_opt.runtime.run_folder import RunFolder

SMALL = ["+task=mlp", "meta_optimizer=sgdm", "compile=false"]


def call(patch: pytest.MonkeyPatch, folder: Path, main, *words: str) -> None:
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["learned_opt", *words])
    main()


@pytest.fixture(scope="module")
def profiled(tmp_path_factory) -> RunFolder:
    """A profiled run, which is not compared."""
    folder = tmp_path_factory.mktemp("profiled")
    sizes = ["horizon=4", "estimator.unroll_length=2", "estimator.num_tasks=2"]
    few = ["trainer.max_steps=3", "callbacks.profile.first=1", "callbacks.profile.steps=1"]
    words = [*SMALL, *sizes, *few, "benchmark.num_chains=2", "hydra.run.dir=run"]
    with pytest.MonkeyPatch.context() as patch:
        call(patch, folder, train.main, *words, "+debug=profile")
    return RunFolder(folder / "run")


def test_quick_touches_everything(tmp_path, monkeypatch) -> None:
    call(monkeypatch, tmp_path, train.main, "debug=quick", *SMALL, "hydra.run.dir=run")
    run = RunFolder(tmp_path / "run")
    assert sorted(path.name for path in run.checkpoints.glob("*.ckpt")) == [
        "step_2.ckpt",
        "step_4.ckpt",
    ]
    with run.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["meta_loss/valid"]) for row in rows] == [False, True, False, True]
    assert {line.split(",")[0] for line in run.diagnostics.read_text().splitlines()[1:]} == {
        "2",
        "4",
    }
    results = read_evaluation(run.evaluation)
    assert set(results.frame["optimizer"]) >= {"sgdm-learned", "sgdm", "adam"}
    assert run.report.is_file()
    assert not (tmp_path / "runs").exists()  # neither tuning runs nor entries of the ledger


def test_a_profile_is_a_trace_and_a_table(profiled) -> None:
    trace = json.loads(gzip.decompress(profiled.trace.read_bytes()))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::cross_entropy_loss" in names
    assert profiled.trace.stat().st_size < 2_000_000


def test_a_run_without_a_benchmark_has_theta_and_a_report(profiled) -> None:
    assert job_file.read(profiled.path)["state"] == "finished"
    assert profiled.theta.is_file()
    assert not profiled.evaluation.exists()
    page = profiled.report.read_text()
    assert "the run was not compared with baselines" in page
    assert "Meta-training" in page


def test_what_compares_needs_a_benchmark(profiled, tmp_path, monkeypatch, capsys) -> None:
    words = [*SMALL[:1], "benchmark=none", f"theta={profiled.theta}", "hydra.run.dir=run"]
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, tmp_path, evaluate.main, *words)
    assert stop.value.code == 2
    assert "benchmark=none compares nothing; leave it out here." in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_without_a_benchmark_is_collected_and_compared_later(
    tmp_path, monkeypatch, capsys
) -> None:
    words = ["-m", *SMALL, "+debug=quick", "seed=0,1"]
    call(monkeypatch, tmp_path, train.main, *words, "benchmark=none", "hydra.sweep.dir=sweep")
    capsys.readouterr()
    call(monkeypatch, tmp_path, collect.main, "sweep")
    text = capsys.readouterr().out
    assert "2 finished" in text
    assert "to run just those again" not in text

    # in the folder of a job the same command without benchmark=none trains nothing and compares
    again = [*SMALL, "+debug=quick", "seed=0", "hydra.run.dir=sweep/0"]
    call(monkeypatch, tmp_path, train.main, *again)
    assert (tmp_path / "sweep" / "0" / "evaluation.json").is_file()

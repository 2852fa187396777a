"""The estimator lab against closed forms, and as a command."""

import json
import sys

import pytest
import torch

from learned_opt.commands import lab as command
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.evaluation.estimator_lab import collect, snr, summarise
from learned_opt.inner.truncation import Constant
from tests.helpers.known_meta_gradients import (
    HORIZON,
    SIGMA,
    THETA,
    analytic_gradient,
    es_truth,
    unroll,
)
from tests.helpers.made_folders import only_folder_of


def test_exact_truncated_and_smoothed_estimators_on_the_quadratic() -> None:
    full = collect(BPTT(unroll(), Constant(HORIZON), 2, HORIZON), THETA, HORIZON, 3, seed=0)
    reference = full.flat.mean(0)
    half = HORIZON // 2
    row = summarise("full", full, reference)
    assert (row["bias"], row["stderr"], row["var"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert row["cosine"] == pytest.approx(1)

    truncated = collect(
        BPTT(unroll(), Constant(HORIZON), 2, half), THETA, HORIZON, 3, seed=0
    )  # one task in each half
    expected = (analytic_gradient(0, half, 0) + analytic_gradient(half, HORIZON, half)) / 2
    assert summarise("truncated", truncated, reference)["bias"] == pytest.approx(
        expected / reference.item() - 1, abs=1e-9
    )

    smoothed = collect(
        ES(unroll(), Constant(HORIZON), 64, HORIZON, SIGMA), THETA, HORIZON, 60, seed=0
    )
    row = summarise("es", smoothed, reference)
    assert abs(row["bias"] - (es_truth() / reference.item() - 1)) < 3 * row["stderr"]
    assert row["var x steps"] == pytest.approx(row["var"] * 2 * 64 * HORIZON)
    assert row["steps"] == 2 * 64 * HORIZON
    assert row["left out"] == 0


def test_tasks_that_were_left_out_are_counted() -> None:
    theta = {"log_lr": torch.tensor(1e3, dtype=torch.float64)}  # overflows in the first step
    written = collect(ES(unroll(), Constant(HORIZON), 2, HORIZON, SIGMA), theta, HORIZON, 3, seed=0)
    assert summarise("es", written, torch.ones(1, dtype=torch.float64))["left out"] == 2 * 3


def test_signal_to_noise_ratio_has_no_bias() -> None:
    source = torch.Generator().manual_seed(0)
    mean = torch.full((50,), 0.3)
    ratios = torch.tensor([snr(mean + torch.randn(10, 50, generator=source)) for _ in range(400)])
    assert ratios.mean().item() == pytest.approx(0.3**2, rel=0.05)
    assert snr(torch.zeros(4, 3)) == 0


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "+task=mlp",
        "horizon=4",
        "unroll_length=2",
        "replicates=2",
        "compile=false",
        "reference.num_tasks=2",
    ]
    cases = ("bptt_truncated", "es", "es_truncated", "gpes", "nres", "pes")
    sizes = [f"+cases.{case}.num_tasks=2" for case in cases]
    monkeypatch.setattr(sys, "argv", ["lab", *arguments, *sizes])
    command.main()
    shown = capsys.readouterr().out
    folder = only_folder_of(tmp_path / "runs/mlp-lab")
    written = json.loads((folder / "lab.json").read_text())
    assert [row["estimator"] for row in written["estimators"]] == ["reference", *cases]
    assert written["blocks"]["pes"]["log_alpha"]["variance"] > 0
    assert (folder / "lab.png").stat().st_size > 5_000
    assert "gpes" in shown
    monkeypatch.setattr(sys, "argv", ["lab", "+task=mlp", "replicates=1"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert "replicates must be at least 2, got 1" in capsys.readouterr().err

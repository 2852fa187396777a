"""The estimator lab against closed forms, and as a command."""

import json
import re
import sys

import numpy as np
import pytest
import torch

from learned_opt.commands import lab as command
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.evaluation.block_signals import block_signals, snr_error
from learned_opt.evaluation.estimator_lab import Estimates, collect, snr, summarise
from learned_opt.inner.truncation import Constant
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.checkpoint_io import WholeFiles
from learned_opt.training.checkpoint_theta import load_theta_or_checkpoint
from tests.cases import FAMILIES, OPTIMIZERS, spec_of
from tests.compose.test_configs import final
from tests.helpers.known_meta_gradients import (
    HORIZON,
    SIGMA,
    THETA,
    analytic_gradient,
    es_truth,
    on_network,
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
    assert row["var x grads"] == pytest.approx(row["var"] * 2 * 64 * HORIZON)
    assert row["grads"] == 2 * 64 * HORIZON
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


def made_up(mean: float, size: int, seed: int, num_gradients: int) -> Estimates:
    """Estimates of a tensor of so many entries, each mean + N(0, 1)."""
    source = torch.Generator().manual_seed(seed)
    values = mean + torch.randn(40, size, generator=source, dtype=torch.float64)
    return Estimates({"w": values, "log_lr": values[:, :1]}, num_gradients, 1.0, 0)


def test_blocks_at_equal_compute() -> None:
    """Of estimates with mean 0.2 and variance 1 in every entry; one costs a tenth of the budget."""
    theta = {"w": torch.zeros(10, 10), "log_lr": torch.zeros(())}
    aim = {"w": torch.ones(100, dtype=torch.float64), "log_lr": torch.ones(1).double()}
    ratios = []
    errors = []
    for seed in range(60):
        signals = block_signals(made_up(0.2, 100, seed, 5), aim, theta, budget=50)
        ratios.append(signals["pointwise"].snr)
        errors.append(signals["pointwise"].snr_error)
    assert list(signals) == ["all", "scalars", "pointwise"]
    assert np.mean(ratios) == pytest.approx(10 * 0.2**2, rel=0.05)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.25)
    assert signals["pointwise"].variance == pytest.approx(100 / 10, rel=0.1)
    assert signals["scalars"].variance == pytest.approx(1 / 10, rel=0.7)
    # the mean of 40 has a signal of 100 * 0.2^2 beside a noise of 100 / 40
    assert signals["pointwise"].cosine == pytest.approx(1 / np.sqrt(1 + 2.5 / 4), abs=0.05)

    exact = Estimates({"w": torch.ones(3, 100), "log_lr": torch.ones(3, 1)}, 5, 1.0, 0)
    signal = block_signals(exact, aim, theta, budget=50)["all"]
    assert (signal.snr, signal.snr_error, signal.variance) == (float("inf"), 0.0, 0.0)
    assert np.isnan(snr_error(torch.ones(2, 4)))


def test_theta_in_the_middle_of_a_training(tmp_path) -> None:
    """Of a checkpoint, or of a run folder that has no trained theta yet."""
    _, theta = on_network(BPTT, "sgdm")
    optimizer = OPTIMIZERS["sgdm"](spec_of(FAMILIES["mlp"]()))
    folder = RunFolder(tmp_path).checkpoints
    folder.mkdir()
    file = folder / "step_7.ckpt"
    state = {f"meta_optimizer.{name}": leaf + 1 for name, leaf in theta.items()}
    WholeFiles().save_checkpoint({"state_dict": state, "estimator_state": {}}, file)
    for name in (file, tmp_path):
        with torch.no_grad():
            optimizer.log_lr.zero_()
        load_theta_or_checkpoint(str(name), optimizer)
        assert torch.equal(optimizer.log_lr, theta["log_lr"] + 1)

    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged, or another file than was written"):
        load_theta_or_checkpoint(str(file), optimizer)
    with pytest.raises(ValueError, match="there is none at"):
        load_theta_or_checkpoint(str(tmp_path / "other.ckpt"), optimizer)
    with pytest.raises(ValueError, match="nothing is called"):
        load_theta_or_checkpoint("nobody", optimizer)


def test_every_estimator_is_a_case_truncated_and_over_the_horizon() -> None:
    """``bptt`` over the horizon is the reference."""
    cases = final("+task=mlp", name="lab").cases
    whole = {"es", "es_control", "guided_es", "inverse_variance"}
    expected = {"gpes", "nres", "nres_control", "pes", "pes_a", "pes_control", *whole}
    assert set(cases) == expected | {f"{name}_truncated" for name in {*whole, "bptt"}}
    assert all(cases[name].unroll_length == 15 for name in cases if name not in whole)


@pytest.mark.usefixtures("real_pictures")
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
    cases = ("bptt_truncated", "es_control", "gpes", "guided_es", "pes", "pes_a")
    others = [name for name in final("+task=mlp", name="lab").cases if name not in cases]
    sizes = [f"+cases.{case}.num_tasks=2" for case in cases]
    sizes += [f"+cases.{case}=null" for case in others]
    monkeypatch.setattr(sys, "argv", ["lab", *arguments, *sizes])
    command.main()
    shown = capsys.readouterr().out
    folder = only_folder_of(tmp_path / "runs/mlp-lab")
    written = json.loads((folder / "lab.json").read_text())
    assert [row["estimator"] for row in written["estimators"]] == ["reference", *cases]
    assert written["tensors"]["pes"]["log_alpha"]["variance"] > 0
    blocks = written["blocks"]["pes"]
    assert list(blocks) == ["all", "scalars", "pointwise", "equivariant"]
    parts = [blocks[name]["variance"] for name in blocks if name != "all"]
    assert blocks["all"]["variance"] == pytest.approx(sum(parts))
    assert (folder / "lab.png").stat().st_size > 5_000
    assert "gpes" in shown
    assert "signal to noise of 10,000 inner gradients" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search("^estimator +bias +stderr", shown, re.M)  # a line for each, not a block
    steps = {row["estimator"]: row["grads"] for row in written["estimators"]}
    assert steps["pes"] == 2 * 2 * 2
    assert steps["pes_a"] == 6 * 2 * 2
    assert steps["es_control"] == steps["guided_es"] == 6 * 2 * 4
    monkeypatch.setattr(sys, "argv", ["lab", "+task=mlp", "replicates=1"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert "replicates must be at least 2, got 1" in capsys.readouterr().err

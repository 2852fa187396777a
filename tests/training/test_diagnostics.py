"""Figures that a meta-training logs of itself: known truths, and a run that they do not change."""

import csv
from itertools import pairwise

import lightning
import pytest
import torch

from learned_opt.core import tree
from learned_opt.core.errors import RunError
from learned_opt.training.callbacks.diagnostics import COLUMNS, Diagnostics, read_diagnostics
from learned_opt.training.callbacks.gauges import Gauges
from learned_opt.training.callbacks.signal_to_noise import SignalToNoise
from learned_opt.training.signal_meter import SignalMeter
from tests.training.test_trainer import STEPS, fit, make_module


class Seen(lightning.Callback):
    """Keeps the logged values of every step."""

    def __init__(self, *names: str) -> None:
        self.values = {name: [] for name in names}

    def on_train_batch_end(self, trainer, *_, **__) -> None:
        for name, values in self.values.items():
            if name in trainer.callback_metrics:
                values.append(trainer.callback_metrics[name].item())


def test_names_in_diagnostics_are_text_and_values_are_numbers(tmp_path) -> None:
    file = tmp_path / "diagnostics.csv"
    heading = ",".join(COLUMNS)
    file.write_text(f"{heading}\n0,mlp,3,layers.0.weight,norm,1.5\n")
    assert read_diagnostics(file)[0]["tensor"] == "layers.0.weight"
    file.write_text(f"{heading}\n0,mlp,3,layers.0.weight,norm,much\n")
    with pytest.raises(RunError, match="row 1 holds 'much' in the column value, which must be"):
        read_diagnostics(file)


def test_signal_and_noise_are_estimated_without_bias() -> None:
    source = torch.Generator().manual_seed(0)
    mu = torch.randn(20, generator=source, dtype=torch.float64)
    estimates = []
    for _ in range(400):
        meter = SignalMeter(0.8)
        for _ in range(12):
            signal, noise = meter.update(
                mu + 2 * torch.randn(20, generator=source, dtype=torch.float64)
            )
        estimates.append(torch.stack([signal, noise]))
    both = torch.stack(estimates)
    stderr = both.std(0) / len(both) ** 0.5
    truth = torch.tensor([mu.square().sum(), 20 * 4.0])
    assert ((both.mean(0) - truth).abs() < 4 * stderr).all()
    # without their corrections both would be off by 0.12 of the noise
    assert (4 * stderr < 0.1 * 80).all()


def test_one_estimate_tells_nothing_and_the_averages_can_be_taken_up_again() -> None:
    first, second = SignalToNoise(0.9), SignalToNoise(0.9)
    assert first.meter.update(torch.ones(3))[1].isnan()
    first.meter.update(torch.zeros(3))
    second.load_state_dict(first.state_dict())
    assert [v.item() for v in first.meter.update(torch.ones(3))] == [
        v.item() for v in second.meter.update(torch.ones(3))
    ]
    with pytest.raises(ValueError, match=r"decay must lie between 0 and 1, got 1.0."):
        SignalToNoise(1.0)


def test_cheap_figures_are_logged_at_every_step(tmp_path) -> None:
    seen = Seen("restarts", "peak_memory/process", "meta_grad_snr")
    fit(make_module(), tmp_path, Gauges(), SignalToNoise(0.9), seen)
    restarts = seen.values["restarts"]
    assert restarts[0] == 0
    # 3 tasks of horizon 4 in unrolls of 2: each restarts at every second outer step
    assert [a + b for a, b in pairwise(restarts[1:])] == [3] * (STEPS - 2)
    assert all(50 < value < 100_000 for value in seen.values["peak_memory/process"])
    assert len(seen.values["meta_grad_snr"]) == STEPS - 1
    assert all(value >= 0 for value in seen.values["meta_grad_snr"])


def test_restarts_of_a_mix_are_those_of_all_tasks(tmp_path) -> None:
    seen = Seen("restarts")
    fit(make_module("deep_set", tasks=("mlp", "cnn")), tmp_path, Gauges(), seen, steps=4)
    assert seen.values["restarts"][1] + seen.values["restarts"][2] == 6


def diagnose(**changes) -> Diagnostics:
    return Diagnostics(**{"every": 4, "num_chains": 2, "num_points": 2, **changes})


def test_diagnostics_are_written_when_they_are_due_and_change_no_training(tmp_path) -> None:
    plain, watched = make_module(), make_module()
    fit(plain, tmp_path / "plain")
    fit(watched, tmp_path / "watched", diagnose(), Gauges(), SignalToNoise(0.9))
    assert all(torch.equal(plain.theta[name], watched.theta[name]) for name in plain.theta)
    states = plain.estimator_state, watched.estimator_state
    assert all(torch.equal(*pair) for pair in zip(*map(tree.leaves, states), strict=True))
    rows = read_diagnostics(tmp_path / "watched" / "diagnostics.csv")
    assert tuple(rows[0]) == COLUMNS
    assert list(dict.fromkeys(row["outer_step"] for row in rows)) == [
        "4",
        "6",
    ]  # every 4, and the last
    assert {row["inner_step"] for row in rows} == {"0", "3"}
    assert {row["tensor"] for row in rows} == set(plain.meta_optimizer.spec.axes)


def test_a_resumed_run_keeps_what_its_checkpoint_knows_of(tmp_path) -> None:
    module = make_module("sgdm")
    with (tmp_path / "diagnostics.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [COLUMNS, *((n, "mlp", 0, "w", "effective_lr", 0.5) for n in (2, 3, 9))]
        )
    fit(make_module("sgdm"), tmp_path, steps=3)
    fit(module, tmp_path, diagnose(), ckpt=tmp_path / "checkpoints" / "step_3.ckpt")
    steps = dict.fromkeys(
        row["outer_step"] for row in read_diagnostics(tmp_path / "diagnostics.csv")
    )
    assert list(steps) == ["2", "3", "4", "6"]


@pytest.mark.parametrize("name", ["every", "num_chains", "num_points"])
def test_counts_must_be_positive(name) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0."):
        diagnose(**{name: 0})

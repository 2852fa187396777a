"""Evaluation: seeds, tuning, intervals, tables."""

import json
import math

import numpy as np
import pytest
import torch

from learned_opt.core import tree
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.compare import Comparison, compare
from learned_opt.evaluation.intervals import bootstrap_mean, paired_difference
from learned_opt.evaluation.seeded_runs import Runs, run_seeds, time_steps
from learned_opt.evaluation.tuning import log_grid, tune
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting import tables
from learned_opt.reporting.plots import Curve, plot_curves
from learned_opt.reporting.run_files import write_report
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, spec_of


def unroll(family=None) -> Unroll:
    family = family or Quadratic(dim=3, random_init=False)
    return Unroll(family, make_sgdm(spec_of(family), lr=0.5), compile=False)


def theta_of(inner: Unroll, count: int) -> dict:
    return tree.expand({k: p.detach() for k, p in inner.optimizer.named_parameters()}, count)


def test_runs_depend_on_their_seed_alone() -> None:
    inner = unroll(FAMILIES["mlp"]())
    many = run_seeds(inner, theta_of(inner, 5), "heldout", range(5), horizon=6, num_chains=2)
    alone = run_seeds(inner, theta_of(inner, 1), "heldout", [3], horizon=6, num_chains=1)
    assert many.losses.shape == (6, 5)
    torch.testing.assert_close(many.losses[:, 3], alone.losses[:, 0], rtol=1e-5, atol=1e-6)
    other = run_seeds(inner, theta_of(inner, 1), "tune", [3], horizon=6, num_chains=1)
    assert not torch.allclose(many.losses[0, 3], other.losses[0, 0])
    assert many.heldout["accuracy"].shape == (5,)


def test_a_diverged_run_is_infinite_from_there_on() -> None:
    inner = unroll()
    theta = {k: v.clone() for k, v in theta_of(inner, 2).items()}
    theta["log_lr"][1] = 80.0
    runs = run_seeds(inner, theta, "heldout", [0, 1], horizon=30, num_chains=2)
    assert runs.losses[:, 0].isfinite().all()
    assert runs.mean_loss[1] == math.inf
    first = runs.losses[:, 1].isinf().int().argmax()
    assert runs.losses[first:, 1].isinf().all()


def test_steps_to_target_uses_the_trailing_mean() -> None:
    losses = torch.tensor([[10.0] * 10 + [0.0] * 10, [10.0] * 20], dtype=torch.float64).T
    assert Runs(losses, {}, {}).steps_to(5.0) == [15, None]
    assert Runs(losses, {}, {}).final_loss.tolist() == [0, 10]


def test_tuning_finds_the_learning_rate_of_a_quadratic() -> None:
    """Gradient descent without momentum on h = 1 is solved in one step by lr = 1."""
    inner = unroll(Quadratic(dim=1, condition=1.0, random_init=False))
    grid = log_grid(1e-2, 1e2, 9)
    assert grid == pytest.approx([10 ** (-2 + i / 2) for i in range(9)])
    tuned = tune(
        inner,
        lambda spec, lr: make_sgdm(spec, lr=lr, gamma=1e-6),
        grid,
        2,
        horizon=20,
        num_chains=4,
    )
    for criterion in ("mean_loss", "final_loss"):
        assert tuned.best(criterion) == pytest.approx(1.0)
        assert not tuned.at_edge(criterion)
    assert tuned.scores["mean_loss"][-1] == math.inf
    short = tune(
        inner,
        lambda spec, lr: make_sgdm(spec, lr=lr, gamma=1e-6),
        grid[:3],
        1,
        horizon=20,
        num_chains=4,
    )
    assert short.at_edge("mean_loss")


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    source = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = bootstrap_mean(source.normal(3.0, 1.0, 32).tolist(), num_resamples=400)
        hits += interval.low <= 3.0 <= interval.high
    assert (
        0.88 <= hits / 200 <= 0.99
    )  # percentile intervals of 32 values cover slightly less than 95%
    assert bootstrap_mean([1.0, math.inf]).mean == math.inf
    assert bootstrap_mean([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_paired_difference_removes_what_the_seeds_share() -> None:
    shared = np.random.default_rng(0).normal(0, 10, 32)
    difference = paired_difference((shared + 1).tolist(), shared.tolist())
    assert difference == pytest.approx((1, 1, 1))


def test_compare_and_report(tmp_path) -> None:
    inner = unroll(FAMILIES["mlp"]())
    benchmark = Benchmark(12, 4, 4, {"sgdm": make_sgdm, "adam": make_adam}, 1e-3, 10.0, 5, 2)
    entries, _ = compare(inner, "mine", benchmark, compile=False)
    assert list(entries)[:2] == ["mine", "sgdm"]
    assert {"adam", "sgdm"} <= set(entries)
    both = dict.fromkeys(("one", "two"), Comparison(entries, ["a warning"]))
    tasks = dict.fromkeys(both, inner.family.describe())
    (tmp_path / "metrics.csv").write_text("step,meta_loss/train/one\n0,3.0\n1,nan\n2,2.0\n")
    rows, others = write_report(tmp_path, tasks, both, "mine", {"seed": "0"}).values()
    assert json.loads((tmp_path / "evaluation.json").read_text()) == [*rows, *others]
    assert others == [{**row, "task": "two"} for row in rows]
    assert len(rows) == 4 * len(entries)
    keys = [
        "task",
        "optimizer",
        "seed",
        "horizon",
        "mean_loss",
        "final_loss",
        "accuracy",
        "steps_to_target",
        "ms_per_step",
    ]
    assert list(rows[0])[:9] == keys
    page = (tmp_path / "report.md").read_text()
    assert page.count("| mine |") == 4  # two tables of each task
    assert "## one" in page
    losses = [row["heldout"]["test_loss"] for row in rows if row["optimizer"] == "mine"]
    assert losses == pytest.approx(entries["mine"].runs.heldout["test_loss"].tolist())
    assert page.count("| optimizer | test loss |") == 2
    assert tables.heldout_table(rows)[0]["test loss"].startswith(
        f"{sum(losses) / len(losses):.4f} ["
    )
    assert "a warning" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    own = [row["mean_loss"] for row in rows if row["optimizer"] == "mine"]
    assert own == pytest.approx(entries["mine"].runs.mean_loss.tolist())


def test_a_negative_meta_loss_is_drawn(tmp_path) -> None:
    """That of ``meta_loss.normaliser=log``; a logarithmic axis would warn, and warnings are errors here."""
    mine = Curve(np.arange(1, 21), np.random.default_rng(0).random((20, 3)) + 1)
    plot_curves(tmp_path / "curves.png", {"t": {"mine": mine}}, {"t": [(0, -0.1), (1, -0.3)]})
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_verdict_names_the_best_rival_and_the_direction() -> None:
    def row(name: str, seed: int, loss: float) -> dict:
        return {"optimizer": name, "seed": seed, "mean_loss": loss, "final_loss": 2 * loss}

    rows = [
        row(n, s, base + 0.1 * s)
        for n, base in (("mine", 1.0), ("a", 3.0), ("b", 2.0))
        for s in range(5)
    ]
    assert tables.verdicts(rows, "mine")[0].startswith(
        "mean loss: mine is ahead of b, difference -1.0000"
    )
    assert "behind mine" in tables.verdicts(rows, "b")[0]
    rows[0]["mean_loss"] = None
    assert "behind" in tables.verdicts(rows, "mine")[0]


def test_a_learned_optimizer_without_baselines_is_compared_with_nothing() -> None:
    rows = tables.evaluation_rows(
        "t", {"unf": tables.Entry(Runs(torch.ones(20, 2), {}, {}), 1.0, None)}
    )
    assert [row["steps_to_target"] for row in rows] == [None, None]
    assert tables.verdicts(rows, "unf") == [
        "no baseline was run, so that unf is compared with nothing"
    ]


def test_times_are_positive_and_named() -> None:
    inner = unroll()
    times = time_steps(
        {"a": (inner, tree.tree_map(lambda t: t[0], theta_of(inner, 1)))}, num_chains=2, repeats=3
    )
    assert 0 < times["a"] < 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"lowest_lr": 0.0}, "0 < lowest < highest, got 0.0"),
        ({"num_lrs": 1}, "at least 2, got 1"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    values = {"horizon": 5, "num_seeds": 2, "num_chains": 2, "baselines": {}}
    values |= {"lowest_lr": 0.1, "highest_lr": 1.0, "num_lrs": 3, "num_tuning_seeds": 1}
    with pytest.raises(ValueError, match=message):
        Benchmark(**(values | settings))

"""Evaluation: seeds, tuning, intervals, tables."""

import io
import itertools
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from learned_opt.core import tree
from learned_opt.evaluation import scores
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.intervals import paired_difference
from learned_opt.evaluation.results import read_evaluation
from learned_opt.evaluation.seeded_runs import Runs, run_seeds
from learned_opt.evaluation.setting import Contender, Setting
from learned_opt.evaluation.step_times import time_steps
from learned_opt.evaluation.suite import run_suite
from learned_opt.evaluation.tuning import log_grid, tune
from learned_opt.evaluation.verdicts import verdict_sentences
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting import plots, screens
from learned_opt.reporting.evaluation_plots import curves_figure
from learned_opt.runtime.run_folder import RunFolder
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, spec_of
from tests.helpers.run_folders import cell_of, results_of


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


def test_paired_difference_removes_what_the_seeds_share() -> None:
    shared = np.random.default_rng(0).normal(0, 10, 32)
    difference = paired_difference((shared + 1).tolist(), shared.tolist())
    assert difference == pytest.approx((1, 1, 1))


def settings_of(inner: Unroll, benchmark: Benchmark, task: str = "one") -> Setting:
    """A setting whose baselines are momentum SGD and Adam."""
    baselines = [
        Contender("sgdm", make_sgdm, {"kind": "sgdm"}),
        Contender("adam", make_adam, {"kind": "adam"}),
    ]
    family = inner.family
    return Setting(task, family, inner.optimizer.spec, benchmark, baselines, compile=False)


@pytest.mark.usefixtures("real_pictures")
def test_the_comparison_that_ends_a_training(tmp_path) -> None:
    """A suite of the tasks of the training, of the inner loops that are there already."""
    inner = unroll(FAMILIES["mlp"]())
    baselines = {"sgdm": make_sgdm, "adam": make_adam}
    benchmark = Benchmark(12, 4, 4, baselines, 1e-3, 10.0, 5, 2)
    trained = {"tasks": {"one": {}}, "draws": {"validation": "valid"}, "provenance": {}}
    unrolls = {"one": inner, "two": inner}
    mine = Contender("mine", make_sgdm, {}, trained, unrolls=unrolls)
    settings = [settings_of(inner, benchmark, task) for task in ("one", "two")]
    results = run_suite(settings, [mine], None, {"seed": "0"})
    results.warn("a warning")

    frame = results.frame
    names = distinct(frame, "optimizer")
    assert names[0] == "mine"
    assert set(names) <= {"mine", "sgdm", "sgdm-final", "adam", "adam-final"}
    alone = run_seeds(inner, theta_of(inner, 4), "heldout", range(4), 12, 4)
    for task in ("one", "two"):
        rows = select(frame, task=task, optimizer="mine")
        assert rows["mean_loss"].tolist() == pytest.approx(alone.mean_loss.tolist())
        assert rows["test_loss"].tolist() == pytest.approx(alone.heldout["test_loss"].tolist())

    folder = RunFolder(tmp_path)
    folder.metrics.write_text("step,meta_loss/train/one\n0,3.0\n1,nan\n2,2.0\n")
    console = Console(file=io.StringIO(), width=200)
    loss = screens.show_results(results, folder, console)
    assert loss == pytest.approx(float(alone.mean_loss.mean()))
    content = json.loads(folder.evaluation.read_text())
    assert len(content["rows"]) == len(frame) == 2 * 4 * len(names)
    back = read_evaluation(folder.evaluation)
    pd.testing.assert_frame_equal(back.frame, frame, check_dtype=False)

    page = folder.report_markdown.read_text()
    assert page.count("| mine | ") >= 4  # two tables of each task
    assert page.count("| optimizer | test loss |") == 2
    assert "## Result: one, horizon 12" in page
    assert "a warning" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_baseline_has_a_row_for_each_criterion_that_wants_another_rate(tmp_path) -> None:
    """A large rate falls fast and stays at the noise, a small one ends lower."""
    family = Quadratic(dim=3, noise=2.0)
    inner = unroll(family)
    baselines = {"sgd": partial(make_sgdm, gamma=1e-6)}
    benchmark = Benchmark(100, 16, 208, baselines, 1e-3, 1.0, 13, 16, reference="sgd")
    contender = Contender("sgd", baselines["sgd"], {})
    setting = Setting("q", family, inner.optimizer.spec, benchmark, [contender], compile=False)
    mine = Contender("mine", make_sgdm, {}, {"tasks": {}}, unrolls={"q": inner})

    frame = run_suite([setting], [mine], None, {}).frame
    assert distinct(frame, "optimizer") == ["mine", "sgd", "sgd-final"]
    rates = frame.groupby("optimizer")["learning_rate"].first()
    assert rates["sgd"] > rates["sgd-final"]
    means = frame.groupby("optimizer")[["mean_loss", "final_loss"]].mean()
    assert means.loc["sgd", "mean_loss"] < means.loc["sgd-final", "mean_loss"]
    assert means.loc["sgd", "final_loss"] > means.loc["sgd-final", "final_loss"]
    # the target is the final loss of the reference as tuned for the final loss
    final = select(frame, optimizer="sgd-final")["final_loss"].tolist()
    assert select(frame, optimizer="mine")["target_loss"].tolist() == final

    only_final = replace(setting, benchmark=replace(benchmark, tuned_for=["final_loss"]))
    again = run_suite([only_final], [mine], None, {}).frame
    assert distinct(again, "optimizer") == ["mine", "sgd"]
    assert select(again, optimizer="sgd")["final_loss"].tolist() == final


@pytest.mark.usefixtures("real_pictures")
def test_a_negative_meta_loss_is_drawn(tmp_path) -> None:
    """That of ``meta_loss.normaliser=log``: a logarithmic axis would warn, which is an error."""
    losses = np.random.default_rng(0).random((20, 3)) + 1
    figure = curves_figure({("t", 20): {"mine": losses}}, {"t": [(0, -0.1), (1, -0.3)]})
    plots.save(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def losses_frame(bases: dict[str, float]) -> pd.DataFrame:
    rows = []
    for (name, base), seed in itertools.product(bases.items(), range(5)):
        loss = base + 0.1 * seed
        rows.append({"optimizer": name, "seed": seed, "mean_loss": loss, "final_loss": 2 * loss})
    return pd.DataFrame(rows)


def test_verdict_names_the_best_rival_and_the_direction() -> None:
    frame = losses_frame({"mine": 1.0, "a": 3.0, "b": 2.0})
    sentence = "mean loss: mine is ahead of b, difference -1.0000"
    assert verdict_sentences(frame, ["mine"])[0].startswith(sentence)
    assert "behind mine" in verdict_sentences(frame, ["b"])[0]
    frame.loc[0, "mean_loss"] = math.inf
    assert "mine is behind b" in verdict_sentences(frame, ["mine"])[0]
    of_two = frame[frame["optimizer"] != "a"]
    assert "b is ahead of mine" in verdict_sentences(of_two, ["b"])[0]


def test_a_learned_optimizer_without_baselines_is_compared_with_nothing() -> None:
    results = results_of({"unf": cell_of(torch.ones(20, 2))}, "t")
    assert results.frame["steps_to_target"].isna().all()
    assert results.reference == ""
    (summary,) = scores.summarise(results.frame, results.reference)
    assert (summary["ahead"], summary["behind"], summary["speedup"]) == (False, False, None)
    assert verdict_sentences(results.frame, ["unf"]) == [
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
        ({"reference": "lion"}, "reference must be one of the baselines adam, got 'lion'"),
        (
            {"tuned_for": ["accuracy"]},
            "tuned_for must be among mean_loss, final_loss, test_loss, got 'acc",
        ),
        ({"tuned_for": []}, "tuned_for must name at least one of mean_loss, final_loss"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    values = {"horizon": 5, "num_seeds": 2, "num_chains": 2, "baselines": {"adam": make_adam}}
    values |= {"lowest_lr": 0.1, "highest_lr": 1.0, "num_lrs": 3, "num_tuning_seeds": 1}
    with pytest.raises(ValueError, match=message):
        Benchmark(**(values | settings))

"""Test losses during held-out runs, and the steps to a target among them."""

import math

import pandas as pd
import pytest
import torch

from learned_opt.core import tree
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.cells import Cell
from learned_opt.evaluation.scores import rows
from learned_opt.evaluation.seeded_runs import run_seeds
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_sgdm
from tests.cases import FAMILIES, spec_of


def runs(family: str, every: int | None, horizon: int = 60):
    task = FAMILIES[family]()
    optimizer = make_sgdm(spec_of(task), lr=0.05)
    unroll = Unroll(task, optimizer, compile=False)
    theta = tree.expand({name: p.detach() for name, p in optimizer.named_parameters()}, 3)
    return run_seeds(unroll, theta, "heldout", range(3), horizon, 2, heldout_every=every)


def test_measuring_changes_no_step_and_ends_with_the_figure_at_the_end() -> None:
    plain = runs("mlp", None)
    measured = runs("mlp", 10)
    assert plain.test_losses is None
    assert torch.equal(plain.losses, measured.losses)
    assert measured.test_losses.shape == (6, 3)
    end = measured.heldout["test_loss"].double()
    torch.testing.assert_close(measured.test_losses[-1], end)
    assert not torch.equal(measured.test_losses[0], measured.test_losses[-1])


def test_steps_that_are_no_multiple_are_not_measured() -> None:
    assert runs("mlp", 25, horizon=60).test_losses.shape == (2, 3)


def cell(test_losses: list[list[float]]) -> Cell:
    """A cell by hand; test losses of each seed, measured at every second step."""
    losses = [[1.0] * (2 * len(row)) for row in test_losses]
    table = pd.DataFrame({"seed": range(len(losses)), "final_loss": 1.0, "losses": losses})
    return Cell(table.assign(test_losses=test_losses), None, {"heldout_every": 2})


def test_steps_by_hand() -> None:
    cells = {
        "adam": cell([[3.0, 2.0, 2.5], [3.0, 3.0, 1.0], [math.nan] * 3]),
        "unf": cell([[2.0, 1.0, 1.0], [2.0, 2.0, 1.5], [1.0, 1.0, 1.0]]),
    }
    setting = {"task": "mlp", "horizon": 6, "axis": "", "point": ""}
    frame = rows(setting, cells, "adam", {})
    steps = {name: part["steps_to_test_loss"].tolist() for name, part in frame.groupby("optimizer")}
    assert steps["adam"][:2] == [4.0, 6.0]
    assert steps["unf"][:2] == [2.0, math.inf]
    assert math.isnan(steps["adam"][2])
    assert math.isnan(steps["unf"][2])
    assert frame["target_test_loss"].tolist()[:2] == [2.0, 1.0]


@pytest.mark.parametrize("every", [0, 7, 100])
def test_it_must_divide_the_segments_of_a_run(every) -> None:
    with pytest.raises(ValueError, match=f"heldout_every must be a divisor of 50, got {every}"):
        Benchmark(5, 2, 2, {}, 1e-3, 1.0, 3, 1, heldout_every=every)

"""What is measured of updates: closed forms, and an inner loop that is not disturbed by it."""

import math
from itertools import product

import pandas as pd
import pytest
import torch

from learned_opt.core import tree
from learned_opt.evaluation import behaviour
from learned_opt.evaluation.behaviour import QUANTITIES, Observed, observe, quantities
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting.update_plots import COLUMNS, updates_figure
from tests.cases import FAMILIES, OPTIMIZERS, spec_of
from tests.helpers.known_meta_gradients import LOG_LR, unroll


def vectors(*rows: list[float]) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(rows)}


def test_quantities_are_those_of_their_definitions() -> None:
    figures = quantities(
        params=vectors([3.0, 4.0], [0.0, 0.0]),
        grads=vectors([1.0, 0.0], [0.0, 2.0]),
        updates=vectors([-0.3, 0.4], [0.0, 1.0]),
        momentum=vectors([-1.0, 0.0], [0.0, -1.0]),
        adam=vectors([0.0, 5.0], [1.0, 0.0]),
    )["w"]
    assert list(figures) == list(QUANTITIES)
    expected = {
        "update_to_weight": [0.1, math.inf],
        "effective_lr": [0.3, -0.5],
        "cosine_sgd": [0.6, -1.0],
        "cosine_momentum": [0.6, -1.0],
        "cosine_adam": [0.8, 0.0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            figures[name], torch.tensor(values, dtype=torch.float64), rtol=1e-6, atol=1e-7
        )


def test_gradient_descent_has_its_learning_rate_at_every_step() -> None:
    rows = observe(unroll(), [("valid", 0), ("valid", 1)], horizon=60, num_points=5)
    assert sorted({row.inner_step for row in rows}) == [
        0,
        15,
        30,
        44,
        59,
    ]  # more than one segment of batches
    values = {quantity: [] for quantity in QUANTITIES}
    for row in rows:
        values[row.quantity].append(row.value)
    assert values["effective_lr"] == pytest.approx([math.exp(LOG_LR)] * 5)
    assert values["cosine_sgd"] == pytest.approx([1.0] * 5)
    assert values["cosine_momentum"][0] == pytest.approx(1.0)
    first = next(row for row in rows if row.quantity == "update_to_weight")
    gradient = torch.tensor([1.0, 0.1])  # curvatures times x = (1, 1)
    assert first.value == pytest.approx(math.exp(LOG_LR) * (gradient.norm() / math.sqrt(2)).item())


@pytest.mark.parametrize(
    ("optimizer", "quantity"), [(make_sgdm, "cosine_momentum"), (make_adam, "cosine_adam")]
)
def test_hand_designed_optimizers_point_where_they_point(optimizer, quantity) -> None:
    family = FAMILIES["mlp"]()
    inner = Unroll(family, optimizer(spec_of(family), lr=0.02), compile=False)
    rows = observe(inner, [("valid", 0)], horizon=4, num_points=4)
    assert [row.value for row in rows if row.quantity == quantity] == pytest.approx(
        [1.0] * 16, abs=1e-6
    )
    assert min(row.value for row in rows if row.quantity == "cosine_sgd") < 0.99


def test_being_observed_changes_nothing() -> None:
    family = FAMILIES["mlp"]()
    torch.manual_seed(0)
    optimizer = OPTIMIZERS["unf"](spec_of(family))
    keys = [("a", 0), ("a", 1)]
    params = []
    for each in (optimizer, Observed(optimizer)):
        inner = Unroll(family, each, compile=False)
        theta = tree.expand({name: p.detach() for name, p in each.named_parameters()}, 2)
        chains = inner.start(keys)
        params.append(inner.run(theta, chains, inner.batches(keys, chains, 5))[1]["params"])
    assert all(torch.equal(*pair) for pair in zip(*map(tree.leaves, params), strict=True))


def test_chains_without_a_figure_do_not_count_in_its_mean() -> None:
    values = {
        "w": {
            "update_to_weight": torch.tensor([1.0, math.inf, 3.0]),
            "cosine_sgd": torch.tensor([math.nan] * 3),
        }
    }
    assert behaviour._rows(7, values) == [behaviour.Row(7, "w", "update_to_weight", 2.0)]


def test_the_picture_has_a_row_for_each_task_and_a_line_for_each_tensor() -> None:
    keys = product((1, 2), "ab", range(3), "vw", QUANTITIES)
    rows = [(*key, 0.5 + key[2]) for key in keys]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    figure = updates_figure(table)
    assert len(figure.axes) == 2 * len(QUANTITIES)
    for panel in figure.axes:
        assert [len(line.get_xdata()) for line in panel.lines] == [3, 3]
    assert figure.axes[0].get_title() == "a, outer step 2"

"""Regression on tables: scaling by training rows, files, and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from learned_opt.core.rng import generator
from tasks.data.embedded import diabetes
from tasks.networks.mlp import MLP
from tasks.networks.moe import MoEMLP
from tasks.regression import regression
from tests.cases import table


def rows_of(split) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = split.gather(split.rows).values()
    return inputs, targets


def test_columns_are_scaled_by_training_rows() -> None:
    family = regression("patients", MLP, diabetes(), "progression")
    for column in rows_of(family.train):
        zeros = torch.zeros(column.shape[1])
        torch.testing.assert_close(column.mean(0), zeros, atol=1e-5, rtol=0)
        torch.testing.assert_close(column.std(0, correction=0), zeros + 1)

    # held-out rows by the same numbers: both parts together are the table, shifted and scaled
    inputs, _ = rows_of(family.test)
    raw = diabetes().columns["bmi"]
    scaled = torch.cat([rows_of(family.train)[0][:, 2], inputs[:, 2]])
    spread = raw.std() / scaled.std()
    expected = (raw.sort().values - raw.mean()) / spread
    torch.testing.assert_close(scaled.sort().values - scaled.mean(), expected, atol=1e-4, rtol=0)
    assert inputs[:, 2].mean().abs() > 1e-3  # not by their own mean


def test_the_best_constant_has_a_loss_of_one_and_least_squares_that_of_its_closed_form() -> None:
    family = regression("patients", partial(MLP, hidden_sizes=()), diabetes(), "progression")
    inputs, targets = rows_of(family.train)
    batch = {"index": torch.arange(len(inputs))}
    zeros = {"layers.0.weight": torch.zeros(1, 10), "layers.0.bias": torch.zeros(1)}
    torch.testing.assert_close(family.loss(zeros, batch, {}), torch.tensor(1.0))

    weight = torch.linalg.lstsq(inputs, targets).solution  # (d, 1)
    fitted = {"layers.0.weight": weight.T, "layers.0.bias": torch.zeros(1)}
    explained = (targets * (inputs @ weight)).mean()  # of a variance of 1
    torch.testing.assert_close(family.loss(fitted, batch, {}), 1 - explained)
    assert 0.4 < explained < 0.6  # R^2 of these data is about a half

    # the error is in the target's unit
    heldout_inputs, heldout_targets = rows_of(family.test)
    error = (heldout_inputs @ weight - heldout_targets).abs().mean()
    unit = diabetes().columns["progression"].std() / torch.cat([targets, heldout_targets]).std()
    torch.testing.assert_close(family.evaluate(fitted, {})["mean_absolute_error"], error * unit)


def test_a_csv_file_is_a_table(tmp_path) -> None:
    path = tmp_path / "houses.csv"
    lines = [f"{row},{row % 3},town{row},{3 * row + 1}" for row in range(20)]
    path.write_text("\n".join(["area,rooms,town,price", *lines]))

    family = regression("houses", MLP, str(path), targets="price", inputs=["area", "rooms"])
    inputs, targets = rows_of(family.train)
    assert family.describe()["data"] == "houses.csv"
    assert inputs.shape == (16, 2)
    torch.testing.assert_close(targets[:, 0], inputs[:, 0])  # price is linear in area

    with pytest.raises(ValueError, match="column 'town' of data must hold numbers"):
        regression("houses", MLP, str(path), targets="price")


def test_inputs_are_all_other_columns_and_one_that_never_changes_is_zero() -> None:
    columns = {**table(), "constant": torch.full((40,), 7.1)}
    family = regression("noise", MLP, columns, targets=["age", "pulse"])
    inputs, targets = rows_of(family.test)
    assert inputs.shape == (8, 3)
    assert targets.shape == (8, 2)
    assert inputs[:, 2].abs().max() < 1e-5
    assert family.evaluate(family.init(generator(0), {}), {}).keys() == {"test_loss"}


@pytest.mark.parametrize("network", [MLP, partial(MoEMLP, num_experts=3, width=4)])
def test_networks_start_as_they_do_elsewhere(network) -> None:
    family = regression("noise", network, table(), "age")
    params = family.init(generator(0), {})
    again = family.init(generator(0), {})
    other = family.init(generator(1), {})
    reference = network((3,), 1).init(generator(2))
    assert list(params) == list(reference)
    for name, param in params.items():
        assert torch.equal(param, again[name])
        # biases are 0, weights are drawn
        assert torch.equal(param, other[name]) == torch.equal(param, reference[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "size"}, "data lack the column 'size'; they have: age, height"),
        ({"targets": "age", "inputs": "size"}, "data lack the column 'size'"),
        ({"targets": "age", "inputs": ["age", "pulse"]}, "both input and target, as age is"),
        ({"targets": []}, "columns of inputs and of targets, got inputs .* and targets \\[\\]"),
        (
            {"targets": "age", "data": {"age": torch.ones(9), "b": torch.arange(9)}},
            "must not be the same in every training row, as one of age is",
        ),
        (
            {"targets": "age", "loss": nn.MSELoss(reduction="none")},
            "the loss of task 'noise' must be a scalar",
        ),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        regression(**{"name": "noise", "network": MLP, "data": table(), **settings})

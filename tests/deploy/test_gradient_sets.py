"""LearnedOptimizer with features of single examples: hooks see what meta-training sees."""

import copy
import logging
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from learned_opt import LearnedOptimizer
from learned_opt.core import tree
from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.optimizers.gradmetanet import GradMetaNet
from learned_opt.optimizers.neuron_moments import NeuronMoments
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import infer_permutation_spec
from learned_opt.unf import Pointwise
from tests.cases import others_slow
from tests.inner.test_tapped_loss import MODULES, TOKENS

SUMS = {
    "examples": partial(SecondMoments, squares="examples"),
    "errors": partial(SecondMoments, squares="errors"),
    "moments": NeuronMoments,
}
ROWS = {"gradmetanet": partial(GradMetaNet, width=4, num_examples=3)}


class Norms(nn.Module):
    """Layers of one dimension with all kinds of norms, and a sum over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular")
        norm = nn.BatchNorm1d(6, track_running_stats=False)
        self.norms = nn.Sequential(norm, nn.PReLU(), nn.GroupNorm(2, 6), nn.RMSNorm((6, 9)))
        self.last = nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.norms(self.first(inputs)).tanh().sum(-1))


class Cells(nn.Module):
    """A cell that is called once for each position, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)
        self.layer = nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        state = torch.zeros(len(inputs), 5, dtype=inputs.dtype)
        for position in range(inputs.shape[1]):
            state = self.cell(inputs[:, position], state)
        return self.layer(self.layer(state).tanh())


class Recurrent(nn.Module):
    """An LSTM on examples first, of which outputs and the last state are read."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(4, 5, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, (state, _) = self.core(inputs)
        return outputs[:, 0] + state[0]


class PositionsFirst(nn.Module):
    """A GRU on positions first."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.GRU(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.core(inputs.transpose(0, 1))[0]).transpose(0, 1)


class Tied(nn.Module):
    """A read-out that shares its weight with a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 11)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.table(tokens)).tanh())


OTHERS = {
    "norms": (Norms, (5, 4, 9)),
    "cells": (Cells, (6, 3, 4)),
    "lstm_examples_first": (lambda: nn.Sequential(nn.Linear(4, 4), Recurrent()), (6, 7, 4)),
    "gru_positions_first": (PositionsFirst, (6, 7, 4)),
    "tied_layers": (Tied, TOKENS),
}
BY_ITSELF = {"tied"}  # reads a weight outside of layers
# positions stand where examples are for hooks and for meta-training, which differ in what they see
EXAMPLES_SECOND = {"gru", "lstm"}
# one of each kind of layer; the others are slow
BY_DEFAULT = {"mlp-sums", "conv-sums", "norms-sums", "tied_layers-sums", "lstm_examples_first-sums"}
BY_DEFAULT |= {"mlp-rows", "conv-rows", "attention-rows", "gru_positions_first-rows"}
CASES = []
for kind, features in (("sums", SUMS), ("rows", ROWS)):
    for case in (*MODULES, *OTHERS):
        if case not in BY_ITSELF and (kind == "sums" or case not in EXAMPLES_SECOND):
            label = f"{case}-{kind}"
            marks = () if label in BY_DEFAULT else pytest.mark.slow
            CASES.append(pytest.param(case, features, id=label, marks=marks))


class Problem:
    """A module in float64 with inputs, targets and an optimizer that reads single examples."""

    def __init__(self, name: str, features: dict, separable: bool = False) -> None:
        torch.manual_seed(0)
        make, shape = (MODULES | OTHERS)[name]
        self.module = make().double()
        is_text = shape is TOKENS
        self.inputs = torch.randint(11, shape) if is_text else torch.randn(shape).double()
        self.targets = torch.randn(self.module(self.inputs).shape).double()

        settings = {"channels": 6, "beta": 0.3, "extra_features": features}
        if separable:
            settings["head"] = Pointwise
        spec = infer_permutation_spec(copy.deepcopy(self.module), self.inputs)
        torch.manual_seed(1)
        self.meta = UNFOptimizer(spec, **settings).double()

    def loss(self, module: nn.Module, rows: slice = slice(None)) -> Tensor:
        return (module(self.inputs[rows]) - self.targets[rows]).square().mean()

    def of_meta_training(self, num_steps: int) -> tree.Tree:
        """Parameters after some inner steps, as the inner loop makes them."""
        module = copy.deepcopy(self.module)

        def loss(params, batch, task):
            outputs = torch.func.functional_call(module, params, (batch["x"],))
            return (outputs - batch["y"]).square().mean()

        params = {name: p.detach().clone() for name, p in module.named_parameters()}
        batch = {"x": self.inputs, "y": self.targets}
        tapped = TappedLoss(loss, params, batch, {})
        assert not tapped.uncovered
        state = self.meta.init_state(params)
        for _ in range(num_steps):
            grads, value, factors = tapped(params, batch, {})
            with torch.no_grad():
                updates, state = self.meta(grads, state, params, value, factors)
            params = tree.add(params, updates)
        return params


def assert_same(module: nn.Module, params: tree.Tree) -> None:
    for name, param in module.named_parameters():
        torch.testing.assert_close(param.detach(), params[name], rtol=1e-7, atol=1e-9)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def train(problem: Problem, optimizer: LearnedOptimizer, num_steps: int = 3) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        problem.loss(problem.module).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "features"), CASES)
def test_a_step_is_that_of_meta_training(name: str, features: dict, caplog) -> None:
    problem = Problem(name, features)
    expected = problem.of_meta_training(3)
    before = {key: value.detach().clone() for key, value in problem.module.named_parameters()}

    train(problem, LearnedOptimizer(problem.module, problem.meta))
    assert not warnings(caplog)
    assert_same(problem.module, expected)
    assert min((expected[key] - value).abs().max() for key, value in before.items()) > 1e-6


@pytest.mark.parametrize(
    ("name", "features"),
    [
        pytest.param("mlp", SUMS, id="mlp-sums"),
        pytest.param("mlp", ROWS, id="mlp-rows"),
        pytest.param("conv", SUMS, id="conv-sums"),
        pytest.param("conv", ROWS, id="conv-rows", marks=pytest.mark.slow),
        pytest.param("attention", SUMS, id="attention-sums", marks=pytest.mark.slow),
        pytest.param("attention", ROWS, id="attention-rows", marks=pytest.mark.slow),
        pytest.param("gru_positions_first", SUMS, id="gru-sums", marks=pytest.mark.slow),
        pytest.param("gru_positions_first", ROWS, id="gru-rows", marks=pytest.mark.slow),
    ],
)
def test_gradient_accumulation_equals_one_batch(name: str, features: dict) -> None:
    """Parts of unequal sizes, each with its share of the mean."""
    problem = Problem(name, features)
    expected = problem.of_meta_training(2)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    count = len(problem.inputs)
    for _ in range(2):
        for part in (slice(0, 2), slice(2, 3), slice(3, count)):
            share = len(range(count)[part]) / count
            (share * problem.loss(problem.module, part)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(problem.module, expected)


def test_norms_of_a_batch_have_the_sets_of_its_parts() -> None:
    """The one kind of layer whose parts are not those of one batch: statistics differ."""
    problem = Problem("norms", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    for part in (slice(0, 2), slice(2, 5)):
        problem.loss(problem.module, part).backward()
    factors = optimizer.hooks.collect(optimizer._slots())
    assert factors["norms.0.weight"].num_rows == 5 * 9


def zero_none(problem: Problem, optimizer: LearnedOptimizer) -> None:
    optimizer.zero_grad()


def zero_in_place(problem: Problem, optimizer: LearnedOptimizer) -> None:
    optimizer.zero_grad(set_to_none=False)


def zero_by_module(problem: Problem, optimizer: LearnedOptimizer) -> None:
    problem.module.zero_grad()


def zero_by_hand(problem: Problem, optimizer: LearnedOptimizer) -> None:
    for param in problem.module.parameters():
        if param.grad is not None:
            param.grad.zero_()


@pytest.mark.parametrize(
    "zero",
    others_slow(
        [zero_none, zero_in_place, zero_by_module, zero_by_hand], [zero_none, zero_by_hand]
    ),
)
@pytest.mark.parametrize("features", [SUMS, ROWS], ids=["sums", "rows"])
def test_zero_grad_starts_a_new_set_wherever_it_stands(zero, features: dict) -> None:
    problem = Problem("conv", features)
    expected = problem.of_meta_training(3)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    for _ in range(3):
        problem.loss(problem.module, slice(0, 2)).backward()  # thrown away
        loss = problem.loss(problem.module)
        zero(problem, optimizer)  # between the forward and the backward pass
        loss.backward()
        optimizer.step()
    assert_same(problem.module, expected)


def test_passes_that_are_not_differentiated_leave_nothing() -> None:
    problem = Problem("lstm_examples_first", ROWS)
    expected = problem.of_meta_training(2)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    for _ in range(2):
        optimizer.zero_grad()
        with torch.no_grad():
            problem.module(problem.inputs)
        problem.module(problem.inputs)  # with a graph, which goes at once
        kept = problem.module(problem.inputs)
        inputs = problem.inputs.clone().requires_grad_()
        saliency = problem.module(inputs)
        torch.autograd.grad(saliency.sum(), inputs)  # no gradient of a parameter
        problem.loss(problem.module).backward()
        optimizer.step()
    assert_same(problem.module, expected)
    assert kept.requires_grad
    assert saliency.requires_grad


@pytest.mark.parametrize("features", [SUMS, ROWS], ids=["sums", "rows"])
def test_a_scaled_loss_and_clipped_gradients_keep_the_sets_in_step(features: dict) -> None:
    """With ``GradScaler`` and a norm that clips, the set is that of the loss times the clipping."""
    problem = Problem("mlp", features)
    twin = copy.deepcopy(problem)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    scaler.scale(problem.loss(problem.module)).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(problem.module.parameters(), 0.01)
    scaler.step(optimizer)

    other = LearnedOptimizer(twin.module, twin.meta)
    (0.01 / (norm + 1e-6) * twin.loss(twin.module)).backward()
    other.step()
    assert norm > 0.05
    assert_same(problem.module, dict(twin.module.named_parameters()))


def test_gradients_changed_one_by_one_are_warned_of_once(caplog) -> None:
    problem = Problem("mlp", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    for _ in range(2):
        optimizer.zero_grad()
        problem.loss(problem.module).backward()
        nn.utils.clip_grad_value_(problem.module.parameters(), 1e-3)
        optimizer.step()
    assert len(warnings(caplog)) == 1
    assert "changed between backward and step by more than one factor" in warnings(caplog)[0]

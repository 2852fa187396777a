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
CASES = []
for kind, features in (("sums", SUMS), ("rows", ROWS)):
    for case in (*MODULES, *OTHERS):
        if case not in BY_ITSELF and (kind == "sums" or case not in EXAMPLES_SECOND):
            CASES.append(pytest.param(case, features, id=f"{case}-{kind}"))


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

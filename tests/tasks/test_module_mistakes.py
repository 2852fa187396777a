"""What is wrong with a module or its loss, in one sentence with what to do."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_flatten

from learned_opt.core.compiled import trace
from learned_opt.inner.task_spec import symmetry_of
from tasks import ModuleTask

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


class Through(nn.Module):
    """Two layers, and a function of what is between them."""

    def __init__(self, function=lambda hidden: hidden, width: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(width, 4)
        self.register_buffer("count", torch.zeros(5))
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.function(self.first(inputs)))


class Counting(Through):
    """A module that counts in a buffer."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.count += 1
        return super().forward(inputs)


class Averaging(Through):
    """A module that puts another buffer in the place of the one that it had."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.count = 0.9 * self.count + 0.1 * self.first(inputs).mean(0).detach()
        return super().forward(inputs)


class Remembering(Through):
    """A module that remembers earlier calls."""

    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(inputs) * self.calls


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs.detach(), targets)


MISTAKES = {
    "sizes": (partial(Through, width=6), {}, "layer 'last' of module Through fails: mat1 and mat2"),
    "buffer in place": (Counting, {}, "module Counting changes its buffer 'count'"),
    "other buffer": (Averaging, {}, "module Averaging changes its buffer 'count'"),
    "memory": (Remembering, {}, "draws at random on its own or remembers earlier calls"),
    "numpy": (
        partial(Through, lambda y: y * np.random.rand()),
        {},
        "draws at random on its own .* use dropout, torch.rand_like or torch.randn_like",
    ),
    "python": (partial(Through, lambda y: y * random.random()), {}, "draws at random on its own"),
    "randperm": (partial(Through, lambda y: y[torch.randperm(12)]), {}, "draws at random"),
    "vector": (
        Through,
        {"loss": partial(functional.mse_loss, reduction="none")},
        r"must be a scalar tensor, got shape \(12, 4\); take its mean",
    ),
    "number": (Through, {"loss": lambda *_: 0.0}, "must be a scalar tensor, got 0.0"),
    "detached": (Through, {"loss": detached}, "does not depend on the parameters"),
    "broadcast": (
        partial(nn.Linear, 4, 1),
        {"loss": lambda outputs, targets: functional.mse_loss(outputs, targets[:, 0])},
        "its loss fails: Using a target size",
    ),
    "its exception": (
        partial(Through, lambda y: 1 / 0),
        {},
        "module Through fails: division by zero",
    ),
    "no loss": (Through, {"loss": None}, "exactly one of loss, .* and batch_loss"),
    "two losses": (Through, {"batch_loss": detached}, "exactly one of loss, .* and batch_loss"),
    "loss of numbers": (Through, {"loss": 3}, "loss must be a function or an nn.Module, got 3"),
    "loss with weights": (Through, {"loss": nn.Bilinear(4, 4, 1)}, "loss Bilinear has parameters"),
    "output": (Through, {"output": "logits"}, "output 'logits' is no part of the Tensor"),
    "figure": (
        Through,
        {"figures": {"errors": lambda outputs, targets: outputs - targets}},
        "figure 'errors' of task 'Through' must be a scalar",
    ),
    "batch size": (Through, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name) -> None:
    module, settings, message = MISTAKES[name]
    settings = {"loss": functional.mse_loss, "batch_size": 12, **settings}
    states = torch.get_rng_state()
    with pytest.raises(ValueError, match=message) as refusal:
        ModuleTask(module, data=X, **settings)
    assert "\n" not in str(refusal.value)
    if name != "randperm":
        assert torch.equal(torch.get_rng_state(), states)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: y if y.sum() > 0 else -y, "module|network Through fails: it takes a number out"),
        (lambda y: y * y.max().item(), "network Through fails: it takes a number out of a tensor"),
    ],
)
def test_control_flow_by_values_is_refused_before_training(function, message) -> None:
    task = ModuleTask(partial(Through, function), functional.mse_loss, X, batch_size=4)
    with pytest.raises(ValueError, match=message):
        symmetry_of(task)


class Deciding(nn.Module):
    """Decides by a tensor that a test makes of its input."""

    def __init__(self, decide) -> None:
        super().__init__()
        self.decide = decide
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden.relu() if self.decide(x).all() else hidden)


def test_control_flow_by_the_batch_is_refused_before_training() -> None:
    decide = partial(Deciding, lambda x: x > 0)
    task = ModuleTask(decide, functional.mse_loss, X, batch_size=4)
    with pytest.raises(ValueError, match="network Deciding fails: it takes a number out"):
        symmetry_of(task)


def test_control_flow_by_constants_is_no_mistake() -> None:
    decide = partial(Deciding, lambda x: torch.arange(len(x)).diff() == 1)
    task = ModuleTask(decide, functional.mse_loss, X, batch_size=4)
    params, spec = symmetry_of(task)
    assert spec.axes["last.weight"][1] == spec.axes["first.weight"][0]

    batch = task.batch(torch.Generator().manual_seed(0), {})
    leaves, structure = tree_flatten((params, batch, {}))
    graph, _ = trace(task.loss, leaves, structure)
    assert torch.equal(graph(*leaves)[0], task.loss(params, batch, {}))
    assert not any("_local_scalar" in str(node.target) for node in graph.graph.nodes)


def test_statistics_of_an_instance_norm_are_refused_with_what_to_do() -> None:
    module = nn.Sequential(nn.Conv1d(1, 2, 1), nn.InstanceNorm1d(2, track_running_stats=True))
    with pytest.raises(ValueError, match=r"layer '1' \(InstanceNorm1d\) .* use GroupNorm"):
        ModuleTask(module, batch_loss=lambda net, batch: net(batch[0]).mean(), data=X[:, None])

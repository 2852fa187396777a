"""Gradients through compiled inner steps are those through the plain ones."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learned_opt.core import compiled, tree
from learned_opt.core.compiled import _warn_once
from learned_opt.core.tree import Tree
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.footprint import footprint
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from tasks.base import TaskFamily
from tests.cases import FAMILIES, OPTIMIZERS, others_slow, spec_of

KEYS = [("test", i) for i in range(3)]
NUM_STEPS = 4
STARTS = ("params", "opt_state")
TOLERANCE = 1e-9  # float64, of the largest entry

CASES = [("mlp", name) for name in ("unf", "unf_all", "unf_tied", "nfn", "velo", "lstm", "adam")]
CASES += [(name, "unf") for name in ("cnn_norm", "gru", "transformer", "quadratic")]
CASES_ONCE = (("mlp", "unf"), ("quadratic", "unf"), ("mlp", "adam"))


def in_float64(value: Any) -> Any:
    """The same with all floating-point tensors in float64; families and modules in place."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, nn.Module):
        return value.double()
    if isinstance(value, dict):
        return {key: in_float64(each) for key, each in value.items()}
    if type(value) is tuple:
        return tuple(in_float64(each) for each in value)
    if isinstance(value, TaskFamily):
        for name, each in vars(value).items():
            setattr(value, name, in_float64(each))
    return value


class Problem:
    """A float64 unroll by compiled and by plain steps, from the same start."""

    def __init__(self, family: str, optimizer: str) -> None:
        torch.manual_seed(0)
        self.family = FAMILIES[family]()
        self.optimizer = OPTIMIZERS[optimizer](spec_of(self.family)).double()
        in_float64(self.family)

        self.theta = {}
        for name, leaf in self.optimizer.named_parameters():
            draws = torch.randn(len(KEYS), *leaf.shape, dtype=torch.float64)
            self.theta[name] = leaf.detach() + 0.01 * draws

    def unroll(self, compile: bool) -> Unroll:
        return Unroll(self.family, self.optimizer, compile=compile)

    def gradients(self, unroll: Unroll, remat: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Losses, and gradients by theta and by what the chains start from.

        They are those of the losses and of where the chains end, so that both ways are tested
        in which later steps and their callers read a step.
        """
        chains = in_float64(unroll.start(KEYS, [NUM_STEPS] * len(KEYS)))
        batches = in_float64(unroll.batches(KEYS, chains, NUM_STEPS))
        theta = required(self.theta)
        chains |= {name: required(chains[name]) for name in STARTS}

        losses, after = unroll.run(theta, chains, batches, remat)
        ends = [leaf.sum() for leaf in tree.leaves(after["params"])]
        sources = tree.leaves(theta) + tree.leaves({name: chains[name] for name in STARTS})
        gradients = torch.autograd.grad(
            losses.sum() + 0.1 * torch.stack(ends).sum(),
            [leaf for leaf in sources if leaf.requires_grad],
            allow_unused=True,
            materialize_grads=True,
        )
        return losses.detach(), list(gradients)


def required(start: Tree) -> Tree:
    return tree.tree_map(lambda leaf: leaf.clone().requires_grad_(leaf.is_floating_point()), start)


def check_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert any(leaf.any() for leaf in expected)
    for left, right in zip(actual, expected, strict=True):
        scale = right.abs().max().item() if right.numel() else 0.0
        torch.testing.assert_close(left, right, rtol=0, atol=TOLERANCE * scale)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced graphs run as they are: all of the path but Inductor, in a second."""
    monkeypatch.setattr(compiled, "_compile", lambda graph, leaves: graph)


@pytest.mark.parametrize(("family", "optimizer"), others_slow(CASES, CASES_ONCE))
def test_gradients_of_traced_steps_are_those_of_plain_ones(family, optimizer, traced_only) -> None:
    problem = Problem(family, optimizer)
    losses, expected = problem.gradients(problem.unroll(compile=False))
    unroll = problem.unroll(compile=True)
    traced_losses, gradients = problem.gradients(unroll)

    torch.testing.assert_close(traced_losses, losses, rtol=TOLERANCE, atol=0)
    check_equal(gradients, expected)
    # all steps are one graph backward, or the first call would take several times as long
    assert len(unroll._pullback.graphs) == 1


@pytest.mark.slow
def test_gradients_of_compiled_steps_are_those_of_plain_ones_and_repeat_bit_for_bit() -> None:
    problem = Problem("mlp", "unf")
    _, expected = problem.gradients(problem.unroll(compile=False), remat=True)
    unroll = problem.unroll(compile=True)
    _, gradients = problem.gradients(unroll)
    _, again = problem.gradients(unroll)

    assert not unroll._pullback.failed
    check_equal(gradients, expected)
    assert all(map(torch.equal, gradients, again))


def test_a_backward_pass_that_does_not_compile_says_so_once_and_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The forward steps have compiled by then, and stay so."""
    problem = Problem("quadratic", "adam")
    _, expected = problem.gradients(problem.unroll(compile=False))
    graphs = []

    def compile_first(graph: Any, leaves: list[Tensor]) -> Any:
        graphs.append(graph)
        if len(graphs) > 1:
            raise ValueError("too many nodes")
        return graph

    monkeypatch.setattr(compiled, "_compile", compile_first)
    _warn_once.cache_clear()
    unroll = problem.unroll(compile=True)
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        gradients = [problem.gradients(unroll)[1] for _ in range(2)]

    for each in gradients:
        check_equal(each, expected)
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].endswith("slower): too many nodes")
    assert unroll._pullback.failed
    assert unroll._compiled_step is not None
    assert not unroll._compiled_step.failed


def test_a_chain_that_diverges_leaves_the_gradients_of_the_others_alone(traced_only) -> None:
    problem = Problem("mlp", "adam")
    unroll = problem.unroll(compile=True)
    _, healthy = problem.gradients(unroll)
    problem.theta["log_lr"][1] = 800.0
    _, gradients = problem.gradients(unroll)

    others = [0, 2]
    for left, right in zip(gradients, healthy, strict=True):
        assert torch.equal(left[others], right[others])
    assert not gradients[0][1].isfinite().all()


def test_an_eager_unroll_that_recomputes_needs_the_memory_of_remat() -> None:
    """It stands for compiled steps where memory is predicted."""
    peaks = []
    for recompute, remat in ((False, True), (True, False), (False, False)):
        family = FAMILIES["quadratic"]()
        optimizer = OPTIMIZERS["adam"](spec_of(family))
        unroll = Unroll(family, optimizer, compile=False, recompute=recompute)
        theta = {name: leaf.detach() for name, leaf in optimizer.named_parameters()}
        needs = footprint(
            lambda num_tasks, length, unroll=unroll, remat=remat: BPTT(
                unroll, Constant(length), num_tasks, length, remat=remat
            ),
            theta,
        )
        peaks.append(needs.peak_bytes(4, 20))
    assert peaks[0] == peaks[1] < peaks[2] / 2

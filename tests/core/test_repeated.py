"""Repeated calls of a compiled step are the calls one by one."""

import pytest
import torch
from torch import Tensor

from learned_opt.core import compiled
from learned_opt.core.compiled import Compiled, NotCompiledError
from learned_opt.core.repeated import Inputs, repeat
from learned_opt.core.tree import Tree, tree_map

FIXED = {"scale": torch.tensor([1.0, 2.0])}
STREAMS = [{"x": torch.arange(10.0).reshape(5, 2)}, {"y": torch.ones(5, 2)}]


def turned(fixed: Tree, carried: Tree, first: Tree, second: Tree) -> tuple[Tensor, Tree]:
    """Leaves its matrix in another layout, and its keys in another order, than it gets them."""
    total = carried["sum"] + fixed["scale"] * first["x"]
    matrix = (carried["matrix"] + second["y"]).mT.contiguous().mT
    return total.sum() + matrix.sum(), {"matrix": matrix, "sum": total}


def one_by_one(carried: Tree) -> tuple[list[list[Tensor]], Tree]:
    outputs = []
    for k in range(5):
        inputs = [tree_map(lambda leaf, k=k: leaf[k], stream) for stream in STREAMS]
        output, carried = turned(FIXED, carried, *inputs)
        outputs.append([output])
    return outputs, carried


def test_outputs_and_what_is_left() -> None:
    start = {"sum": torch.zeros(2), "matrix": torch.zeros(3, 2)}
    step = Compiled(turned)
    started_from: list[list[Tensor]] = []
    results = repeat(step, FIXED, start, Inputs.of(STREAMS), started_from)

    torch.testing.assert_close(results, one_by_one(start))
    # what a backward pass gets has one layout, or it would call a graph of another
    assert len(started_from) == 5
    assert all(leaf.is_contiguous() for state in started_from for leaf in state)
    # that of the start, and that of what a step leaves
    assert len(step.graphs) == 2


def test_one_step() -> None:
    start = {"sum": torch.zeros(2), "matrix": torch.zeros(3, 2)}
    streams = [tree_map(lambda leaf: leaf[:1], stream) for stream in STREAMS]
    outputs, carried = repeat(Compiled(turned), FIXED, start, Inputs.of(streams))
    assert len(outputs) == 1
    assert list(carried) == ["matrix", "sum"]


def test_a_step_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(compiled, "_compile", fail)
    step = Compiled(turned)
    start = {"sum": torch.zeros(2), "matrix": torch.zeros(3, 2)}
    with pytest.raises(NotCompiledError):
        repeat(step, FIXED, start, Inputs.of(STREAMS))
    assert step.failed

"""Compiled functions are the functions, also where Inductor's plan of memory is another."""

import logging

import pytest
import torch
from torch import Tensor

from learned_opt.core import compiled
from learned_opt.core.compiled import Compiled


def scores_with_a_cache(queries: Tensor, keys: Tensor) -> Tensor:
    """As models of Hugging Face write it: keys are put behind a cache that is empty."""
    heads = keys.unflatten(-1, (2, -1)).transpose(1, 2)  # (batch, heads, positions, size)
    cached = torch.cat([torch.tensor([]), heads], dim=-2)
    asked = queries.unflatten(-1, (2, -1)).transpose(1, 2)
    return asked @ cached.mT


def test_a_view_that_the_plan_forbids_is_a_copy(caplog: pytest.LogCaptureFixture) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 2, 5, 8, generator=generator) for _ in range(2)]
    function = torch.func.vmap(scores_with_a_cache)

    with caplog.at_level(logging.WARNING):
        outputs = Compiled(function)(*inputs)
    torch.testing.assert_close(outputs, function(*inputs))
    assert not caplog.records


def test_what_does_not_compile_runs_eagerly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such stride\nand more lines")

    monkeypatch.setattr(compiled, "_compile", fail)
    compiled._warn_once.cache_clear()
    doubled = Compiled(lambda x: 2 * x)
    with caplog.at_level(logging.WARNING):
        results = [doubled(torch.ones(2)).tolist() for _ in range(2)]

    assert results == [[2.0, 2.0]] * 2
    assert [record.message.endswith("slower): no such stride") for record in caplog.records] == [
        True
    ]


def test_errors_of_the_function_are_its_errors() -> None:
    def refuse(x: Tensor) -> Tensor:
        raise ValueError(f"no such shape: {tuple(x.shape)}")

    with pytest.raises(ValueError, match=r"no such shape: \(2,\)"):
        Compiled(refuse)(torch.ones(2))

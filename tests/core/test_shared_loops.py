"""Loops that threads share."""

import re

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache, run_and_get_code

from learned_opt.core.shared_loops import shared_outer_loops


def generated() -> str:
    """The code of the sums of 32 chains over 128 examples of ten classes."""

    def sums(x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)

    torch._dynamo.reset()
    with fresh_cache(), inductor.patch({"cpp.threads": 2}):
        _, (code,) = run_and_get_code(torch.compile(sums), torch.ones(32, 128, 10))
    return code


def test_threads_share_chains_not_the_sum_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    one_by_one = re.compile(r"for\(.*#pragma omp parallel", re.DOTALL)
    assert one_by_one.search(generated()), "Inductor has mended it: shared_loops can go"
    with shared_outer_loops():
        assert not one_by_one.search(generated())

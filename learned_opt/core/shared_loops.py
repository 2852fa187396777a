"""Which loops of generated code threads share.

Inductor counts a loop over fewer numbers than a vector holds, such as one over ten classes, as no
steps at all. It then takes the loops around it for short and has threads meet in every turn of them
to share the sum inside: 32 chains are 32 barriers instead of one, and the order of the sum depends
on the number of threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from torch._inductor.codegen.cpp import LoopNest, ParallelDepth

MUCH_LARGER = 300  # Inductor's rule: so many times the turns outside are worth a barrier in each


@contextmanager
def shared_outer_loops() -> Iterator[None]:
    """Let threads share the outer loops of a sum, unless these really are short."""
    nests: Any = LoopNest
    original = nests.max_parallel_depth

    def max_parallel_depth(nest: Any) -> ParallelDepth:
        depth = original(nest)
        loops = nest.loops or []
        num_outer = depth.start_depth
        if num_outer == 0:
            return depth

        turns = prod(loop.size for loop in loops[:num_outer])
        inner = loops[num_outer]
        if turns * MUCH_LARGER < inner.size // inner.steps:
            return depth
        return ParallelDepth(parallel_depth=num_outer, start_depth=0)

    nests.max_parallel_depth = max_parallel_depth
    try:
        yield
    finally:
        nests.max_parallel_depth = original

"""The trials of a fuzz: each has a number and a source of its own, so that one can be run alone.

LEARNED_OPT_FUZZ_SEED chooses other trials, LEARNED_OPT_FUZZ_FIRST and LEARNED_OPT_FUZZ_COUNT a part
of them.
"""

import os
import random
from collections.abc import Iterator

SEED = int(os.environ.get("LEARNED_OPT_FUZZ_SEED", "20"))


def trials(count: int) -> Iterator[tuple[int, random.Random]]:
    """The number of each trial and its source of draws.

    Args:
        count: how many, where the environment does not say.
    """
    first = int(os.environ.get("LEARNED_OPT_FUZZ_FIRST", "0"))
    count = int(os.environ.get("LEARNED_OPT_FUZZ_COUNT", count))
    for number in range(first, first + count):
        yield number, random.Random(hash((SEED, number)))

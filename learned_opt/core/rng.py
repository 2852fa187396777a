"""Counter-based random numbers: a generator is a pure function of its key.

No generator lives across steps, so no state of one needs saving, and neither the order of
execution nor the number of processes changes a draw.
"""

import hashlib

import torch

Key = int | str


def generator(*key: Key) -> torch.Generator:
    """A CPU generator seeded by a hash of ``key``, e.g. ``(seed, "batch", step, chain)``."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw_key(source: torch.Generator) -> int:
    """One 62-bit integer from ``source``: the root of further keys."""
    return int(torch.randint(2**62, (), generator=source))

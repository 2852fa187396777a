"""Counter-based random numbers: a generator is a pure function of its key.

No generator lives across steps, so no state of one needs saving, and neither the order of
execution nor the number of processes changes a draw.
"""

import hashlib

import torch

Key = int | str


def generator(*key: Key) -> torch.Generator:
    """A CPU generator seeded by a hash of a key.

    Args:
        key: whole numbers and words that say which draw it is, e.g. seed, purpose, step, chain.

    >>> first = torch.rand(3, generator=generator(0, "batch", 7))
    >>> again = torch.rand(3, generator=generator(0, "batch", 7))
    >>> torch.equal(first, again)
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "big") >> 1  # torch takes 63 bits
    return torch.Generator().manual_seed(seed)


def draw_key(source: torch.Generator) -> int:
    """One 62-bit integer from ``source``: the root of further keys."""
    return int(torch.randint(2**62, (), generator=source))

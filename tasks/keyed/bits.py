"""Random numbers as a pure function of a key: no generator, so vmap and compile go through them.

A counter is scrambled with the key, as in counter-based generators (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3").
"""

from math import prod, tau

import torch
from torch import Tensor

LOW = 0xFFFFFFFF  # 32 bits; the int64 tensors below hold unsigned numbers of so many
FACTOR = 0x45D9F3B  # odd and below 2^31, so that no product leaves int64
GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: numbers of draws become far apart
RESOLUTION = 24  # bits of a uniform number, as many as float32 has


def uniform(key: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers uniform in [0, 1), float32.

    Args:
        key: scalar int64, at least 0; it lies where the numbers are to lie.
        draw: tells the draws of one key apart.
        shape: of the result.

    >>> key = torch.tensor(7)
    >>> torch.equal(uniform(key, 0, (3,)), uniform(key, 0, (3,)))
    True
    >>> torch.equal(uniform(key, 0, (3,)), uniform(key, 1, (3,)))
    False
    """
    counter = torch.arange(prod(shape), device=key.device)
    stream = (draw * GOLDEN) & LOW

    # each half of the key enters before a scramble of its own
    bits = _scramble(counter ^ (key & LOW))
    bits = _scramble(bits ^ (key >> 32) ^ stream)
    bits = _scramble((bits + counter) & LOW)

    numbers = (bits >> (32 - RESOLUTION)).float() * 2.0**-RESOLUTION
    return numbers.reshape(shape)


def normal(key: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32, by the Box-Muller transform.

    Args:
        key: as in ``uniform``.
        draw: as in ``uniform``.
        shape: of the result.
    """
    both = uniform(key, draw, (2, *shape))
    radius = (-2 * torch.log1p(-both[0])).sqrt()  # of 1 - u, which is never 0
    return radius * torch.cos(tau * both[1])


def _scramble(bits: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in which every bit depends on all."""
    for _ in range(2):
        bits = ((bits ^ (bits >> 16)) * FACTOR) & LOW
    return bits ^ (bits >> 16)

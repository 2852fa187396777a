"""Valid partitions: the combinatorics behind the basis of equivariant linear maps.

Source: Zhou et al. 2024 (arXiv 2402.05232), section 3.2. A basis map from one tensor to another is
a set partition of the output and input axes whose blocks only hold axes of one permutation name.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from math import comb, prod

from learned_opt.symmetry.spec import PermutationSpec

# block number of each axis, in order of first appearance (restricted growth)
Labels = tuple[int, ...]


def set_partitions(names: Sequence[str]) -> Iterator[Labels]:
    """All set partitions of axes into blocks of equal names.

    Args:
        names: permutation name of each axis.

    Yields:
        Labels: ``labels[i]`` is the block of axis ``i``; blocks are numbered by first appearance.

    >>> list(set_partitions("hhx"))
    [(0, 0, 1), (0, 1, 2)]
    """

    def extend(labels: Labels, blocks: tuple[str, ...]) -> Iterator[Labels]:
        if len(labels) == len(names):
            yield labels
            return

        name = names[len(labels)]
        for block, block_name in enumerate(blocks):
            if block_name == name:
                yield from extend((*labels, block), blocks)
        yield from extend((*labels, len(blocks)), (*blocks, name))

    return extend((), ())


@cache
def bell(n: int) -> int:
    """Bell number: how many set partitions ``n`` elements have.

    >>> [bell(n) for n in range(6)]
    [1, 1, 2, 5, 15, 52]
    """
    return 1 if n == 0 else sum(comb(n - 1, k) * bell(k) for k in range(n))


def num_partitions(out_names: Sequence[str], in_names: Sequence[str]) -> int:
    """Number of valid partitions between two tensors: a product of Bell numbers over the names.

    >>> num_partitions(("h", "x"), ("h",))
    2
    """
    counts = Counter([*out_names, *in_names])
    return prod(bell(count) for count in counts.values())


def num_basis(spec: PermutationSpec) -> int:
    """Number of basis maps of a weight space to itself, summed over all ordered pairs of tensors.

    They are linearly independent when every name is at least as long as its Bell argument.
    """
    pairs = product(spec.axes.values(), repeat=2)
    return sum(num_partitions(out, inp) for out, inp in pairs)

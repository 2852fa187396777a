"""Spec -> plan: how all basis maps of a UNF layer are computed with few passes over the weights.

A valid partition splits into three independent choices: how the input axes group (its diagonals), how the output
axes group, and which input blocks are matched to which output blocks. Unmatched input blocks are averaged away;
unmatched output blocks are broadcast. So the partitions with the same matched names (the *signature*) form a
complete bipartite graph between *sources* (reduced inputs) and *targets* (output patterns), and all of them
are ONE matrix product: channels of all sources -> channels of all targets, at the reduced shape.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, permutations, product
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.partitions import Labels, set_partitions

Signature = tuple[str, ...]  # sorted permutation names of the matched blocks


class Pattern(NamedTuple):
    """One way to read a tensor down to, or write it up from, the matched blocks.

    ``labels`` is the block of each axis; ``kept`` lists the matched blocks in the order of the signature.
    """

    parameter: str
    labels: Labels
    kept: tuple[int, ...]


class Group(NamedTuple):
    """All basis maps of one signature: every source is connected to every target."""

    signature: Signature
    sources: tuple[Pattern, ...]
    targets: tuple[Pattern, ...]


class Plan(NamedTuple):
    """What a UNF layer does on one spec."""

    groups: tuple[Group, ...]

    @property
    def num_basis(self) -> int:
        """Number of basis maps, the Bell-number count."""
        return sum(len(group.sources) * len(group.targets) for group in self.groups)


def block_names(names: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """Permutation name of each block."""
    return tuple(dict(zip(labels, names, strict=True)).values())


def _kept_blocks(names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Every subset of blocks, sorted by name so that equal signatures line up."""
    subsets = [
        subset for size in range(len(names) + 1) for subset in combinations(range(len(names)), size)
    ]
    return [tuple(sorted(subset, key=lambda block: (names[block], block))) for subset in subsets]


def _orders(names: tuple[str, ...], kept: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All orders of the kept blocks that leave the signature as it is: blocks of one name may swap."""
    runs = [[b for b in kept if names[b] == name] for name in dict.fromkeys(names[b] for b in kept)]
    return [
        tuple(b for run in choice for b in run)
        for choice in product(*(list(permutations(r)) for r in runs))
    ]


@cache
def make_plan(spec: PermutationSpec) -> Plan:
    """The plan of a spec; computed once per spec.

    Order matters on one side only: targets keep their blocks in canonical order and sources run through all
    orders, so that each matching of blocks, hence each valid partition, occurs exactly once.
    """
    sources: dict[Signature, list[Pattern]] = {}
    targets: dict[Signature, list[Pattern]] = {}
    for parameter, names in spec.axes.items():
        for labels in set_partitions(names):
            blocks = block_names(names, labels)
            for kept in _kept_blocks(blocks):
                signature = tuple(blocks[block] for block in kept)
                targets.setdefault(signature, []).append(Pattern(parameter, labels, kept))
                sources.setdefault(signature, []).extend(
                    Pattern(parameter, labels, order) for order in _orders(blocks, kept)
                )
    return Plan(tuple(Group(s, tuple(sources[s]), tuple(targets[s])) for s in targets))

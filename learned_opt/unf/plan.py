"""Spec -> plan: how all basis maps of a UNF layer are computed with few passes over the weights.

A valid partition splits into three independent choices: how the input axes group (its diagonals),
how the output axes group, and which input blocks are matched to which output blocks. Unmatched
input blocks are averaged away; unmatched output blocks are broadcast. So the partitions with the
same matched names (the *signature*) form a complete bipartite graph between *sources* (reduced
inputs) and *targets* (output patterns), and all of them are ONE matrix product: channels of all
sources -> channels of all targets, at the reduced shape.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, combinations, permutations, product
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.partitions import Labels, set_partitions

Signature = tuple[str, ...]  # sorted permutation names of the matched blocks
Blocks = tuple[int, ...]


class Pattern(NamedTuple):
    """One way to read a tensor down to, or write it up from, the matched blocks.

    ``labels`` is the block of each axis; ``kept`` lists the matched blocks in the order of the
    signature.
    """

    parameter: str
    labels: Labels
    kept: Blocks


class Group(NamedTuple):
    """All basis maps of one signature: every source is connected to every target."""

    signature: Signature
    sources: tuple[Pattern, ...]
    targets: tuple[Pattern, ...]


class Plan(NamedTuple):
    """The computation of a UNF layer on one spec."""

    groups: tuple[Group, ...]

    @property
    def num_basis(self) -> int:
        """Number of basis maps, the Bell-number count."""
        return sum(len(group.sources) * len(group.targets) for group in self.groups)

    def num_terms(self, num_folds: Mapping[str, int]) -> dict[str, int]:
        """How many basis maps arrive at one entry of each parameter.

        Args:
            num_folds: how often each parameter counts, as a source.
        """
        counts = dict.fromkeys(num_folds, 0)
        for group in self.groups:
            arriving = sum(num_folds[source.parameter] for source in group.sources)
            for target in group.targets:
                counts[target.parameter] += arriving
        return counts

    def whole(self, parameter: str) -> tuple[Group, Pattern] | None:
        """Where a parameter of two axes or more is read as a whole.

        Returns:
            tuple[Group, Pattern] | None: the group and its source; None for vectors and scalars,
            and where two axes have one name, which are read in several orders and on a diagonal.
        """
        readings = []
        for group in self.groups:
            for source in group.sources:
                is_whole = len(source.kept) == len(source.labels) > 1
                if source.parameter == parameter and is_whole:
                    readings.append((group, source))
        return readings[0] if len(readings) == 1 else None


@cache
def make_plan(spec: PermutationSpec) -> Plan:
    """The plan of a spec; computed once per spec.

    Order matters on one side only: targets keep their blocks in canonical order and sources run
    through all orders, so that each matching of blocks, hence each valid partition, occurs exactly
    once.

    >>> plan = make_plan(PermutationSpec({"weight": ("h", "x"), "bias": ("h",)}))
    >>> [group.signature for group in plan.groups]
    [(), ('h',), ('x',), ('h', 'x')]
    >>> plan.num_basis
    10
    """
    sources: dict[Signature, list[Pattern]] = defaultdict(list)
    targets: dict[Signature, list[Pattern]] = defaultdict(list)
    for parameter, names in spec.axes.items():
        for labels in set_partitions(names):
            blocks = block_names(names, labels)
            for kept in _kept_blocks(blocks):
                signature = tuple(blocks[block] for block in kept)
                targets[signature].append(Pattern(parameter, labels, kept))
                orders = _orders(blocks, kept)
                sources[signature].extend(Pattern(parameter, labels, order) for order in orders)

    groups = []
    for signature, patterns in targets.items():
        groups.append(Group(signature, tuple(sources[signature]), tuple(patterns)))
    return Plan(tuple(groups))


def block_names(names: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """Permutation name of each block."""
    return tuple(dict(zip(labels, names, strict=True)).values())


def _kept_blocks(names: tuple[str, ...]) -> Iterator[Blocks]:
    """Every subset of blocks, sorted by name so that equal signatures line up."""
    for size in range(len(names) + 1):
        for subset in combinations(range(len(names)), size):
            yield tuple(sorted(subset, key=lambda block: (names[block], block)))


def _orders(names: tuple[str, ...], kept: Blocks) -> list[Blocks]:
    """All orders of the kept blocks that leave the signature as it is.

    Blocks of one name may swap.
    """
    runs: dict[str, list[int]] = defaultdict(list)
    for block in kept:
        runs[names[block]].append(block)

    choices = product(*map(permutations, runs.values()))
    return [tuple(chain.from_iterable(choice)) for choice in choices]

"""A meta-optimizer from the config node in its ``theta.json``, which may come from anywhere.

Nothing but our own classes is imported, and those of modules that the user trusts, see
``foreign_classes``. Nodes are plain data: nothing in them is resolved.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from learned_opt.deploy.foreign_classes import AllowedClasses
from learned_opt.deploy.plain_data import refuse_references
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

PACKAGES = ("learned_opt.optimizers.", "learned_opt.unf.")
SCHEDULES = "learned_opt.optimizers.schedule"  # whose members are functions, not modules
HAND = "learned_opt.optimizers.hand"
# how full names began in files of earlier versions -> how they begin today
MOVED = {
    "learned_opt.optimizers.rules.": f"{HAND}.",
    f"{HAND}.HandDesigned": f"{HAND}.hand_designed.HandDesigned",
}
UNF_LINEAR = "learned_opt.unf.layers.UNFLinear"
POINTWISE_UNF_LINEAR = "learned_opt.unf.layers.PointwiseUNFLinear"
# an argument of earlier versions -> the class that takes its place
TIES = {"tensor": UNF_LINEAR, "type": "learned_opt.unf.type_tied.TypeTied"}

# what constructors of ours raise where arguments are of the right types, but make no sense
MISFITS = (
    TypeError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    AssertionError,
    MemoryError,
)


def build(node: Any, spec: PermutationSpec, trust: tuple[str, ...] = ()) -> MetaOptimizer:
    """The optimizer on a spec, its theta still to be loaded.

    The caller's random numbers stay as they are.

    Args:
        node: ``meta_optimizer`` of a ``theta.json``; names of earlier versions will do.
        spec: the weight space.
        trust: modules of others that the node may name.

    Raises:
        ValueError: the node names something else than a meta-optimizer of ours, or arguments that
            it does not take.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    node = with_current_names(node)
    refuse_references(node, "meta_optimizer")
    allowed = _allowed(trust)
    allowed.check(node, "meta_optimizer")

    try:
        with torch.random.fork_rng(devices=[]):
            constructor = _value(node, "meta_optimizer", allowed)
            if not isinstance(constructor, partial) or not _makes_optimizers(constructor.func):
                raise ValueError(
                    f"meta_optimizer must be the config of a meta-optimizer, got {target!r}."
                )
            return constructor(spec)
    except MISFITS as error:
        raise ValueError(
            f"meta_optimizer {target} does not take these arguments: {error}."
        ) from error


def names_only_ours(node: Any) -> bool:
    """Whether a node, and all below it, names classes of ours alone."""
    return not foreign_packages(node)


def foreign_packages(node: Any) -> list[str]:
    """The packages of others whose classes a node names, in order; those a user must trust.

    >>> foreign_packages({"_target_": "mypkg.nets.Net", "rule": {"_target_": "mypkg.Rule"}})
    ['mypkg']
    """
    parts = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else []
    packages: set[str] = set()
    for part in parts:
        packages.update(foreign_packages(part))

    target = node.get("_target_") if isinstance(node, Mapping) else None
    if target is not None and not str(target).startswith(PACKAGES):
        packages.add(str(target).partition(".")[0])
    return sorted(packages)


def with_current_names(node: Any) -> Any:
    """A copy of a node in which classes that have moved since it was written have today's names.

    >>> with_current_names({"_target_": "learned_opt.optimizers.rules.sgd.SGD", "lr": 1.0})
    {'_target_': 'learned_opt.optimizers.hand.sgd.SGD', 'lr': 1.0}
    """
    if isinstance(node, list):
        return [with_current_names(part) for part in node]
    if not isinstance(node, Mapping):
        return node

    copy = {key: with_current_names(part) for key, part in node.items()}
    if isinstance(copy.get("_target_"), str):
        copy["_target_"] = _current_name(copy["_target_"])
    return _without_tie(copy)


def _without_tie(node: dict[str, Any]) -> dict[str, Any]:
    """A layer whose ``tie`` names a class; other nodes stay as they are."""
    target = node.get("_target_")
    tied = TIES.get(str(node.get("tie")))
    if target not in (UNF_LINEAR, POINTWISE_UNF_LINEAR) or tied is None:
        return node

    layer = {key: part for key, part in node.items() if key != "tie"}
    if target == UNF_LINEAR:
        return layer | {"_target_": tied}
    return layer | {"equivariant": {"_target_": tied, "_partial_": True}}


def _current_name(target: str) -> str:
    for old, new in MOVED.items():
        if target.startswith(old):
            return new + target.removeprefix(old)
    return target


def _makes_optimizers(constructor: Any) -> bool:
    return isinstance(constructor, type) and issubclass(constructor, MetaOptimizer)


def _allowed(trust: tuple[str, ...]) -> AllowedClasses:
    return AllowedClasses(PACKAGES, nn.Module, (f"{SCHEDULES}.",), trust)


def _value(node: Any, where: str, allowed: AllowedClasses) -> Any:
    """What a checked node stands for; ``where`` is its path in the config, for messages."""
    if isinstance(node, list):
        return [_value(part, f"{where}[{i}]", allowed) for i, part in enumerate(node)]
    if not isinstance(node, Mapping):
        return node

    arguments = {}
    for key, part in node.items():
        if not key.startswith("_"):
            arguments[key] = _value(part, f"{where}.{key}", allowed)
    if "_target_" not in node:
        return arguments

    constructor = partial(allowed.constructor(node["_target_"], where), **arguments)
    return constructor if node.get("_partial_") else constructor()

"""A meta-optimizer from the config node in its ``theta.json``, which may come from anywhere.

Nothing but our own classes is imported. A node is what Hydra would instantiate, in a safe subset:
``_target_`` names a class of our own optimizers or layers, or a schedule, ``_partial_`` leaves it
to be called later, all other keys are arguments: numbers, text, lists and nodes.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

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


def build(node: Any, spec: PermutationSpec) -> MetaOptimizer:
    """The optimizer on a spec, its theta still to be loaded.

    The caller's random numbers stay as they are.

    Args:
        node: ``meta_optimizer`` of a ``theta.json``; names of earlier versions will do.
        spec: the weight space.

    Raises:
        ValueError: the node names something else than a meta-optimizer of ours, or arguments that
            it does not take.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    try:
        with torch.random.fork_rng(devices=[]):
            constructor = _value(with_current_names(node), "meta_optimizer")
            if not isinstance(constructor, partial) or not _makes_optimizers(constructor.func):
                raise ValueError(
                    f"meta_optimizer must be the config of a meta-optimizer, got {target!r}."
                )
            return constructor(spec)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"meta_optimizer {target} does not take these arguments: {error}."
        ) from error


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


def _value(node: Any, where: str) -> Any:
    """What a node stands for; ``where`` is its path in the config, for messages."""
    if isinstance(node, list):
        return [_value(part, f"{where}[{i}]") for i, part in enumerate(node)]
    if not isinstance(node, Mapping):
        return node

    arguments = {}
    for key, part in node.items():
        if not key.startswith("_"):
            arguments[key] = _value(part, f"{where}.{key}")
    if unknown := sorted(set(node) - set(arguments) - {"_target_", "_partial_"}):
        raise ValueError(f"{where} has keys that are not supported: {', '.join(unknown)}.")
    if "_target_" not in node:
        return arguments

    constructor = partial(_our_class(node["_target_"], where), **arguments)
    return constructor if node.get("_partial_") else constructor()


def _our_class(target: Any, where: str) -> Callable[..., Any]:
    """A module class that is defined in one of PACKAGES, or a schedule, by its full name."""
    packages = " or ".join(package.rstrip(".") for package in PACKAGES)
    refusal = f"{where} names {target!r}, which is no class of {packages}."
    if not isinstance(target, str) or not target.startswith(PACKAGES):
        raise ValueError(refusal)
    if not target.replace(".", "").isidentifier():
        raise ValueError(refusal)

    module_name, _, name = target.rpartition(".")
    try:
        candidate = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(refusal) from error

    # a module's own imports (torch, nn, ctypes) are reachable by name, but defined elsewhere
    is_defined_there = getattr(candidate, "__module__", None) == module_name
    is_module_class = isinstance(candidate, type) and issubclass(candidate, nn.Module)
    if not is_defined_there or not (is_module_class or module_name == SCHEDULES):
        raise ValueError(refusal)
    return cast(Callable[..., Any], candidate)

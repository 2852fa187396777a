"""From whatever stands for an optimizer to what an evaluation compares."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from learned_opt.api.arguments import built, check_optimizer, shown
from learned_opt.api.meta_trained import MetaTrained
from learned_opt.deploy.optimizer import LearnedOptimizer
from learned_opt.evaluation.setting import Contender
from learned_opt.evaluation.theta_contender import find_theta, theta_contender
from learned_opt.inner.bound_task import LoopSettings
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

# of an optimizer that nobody has trained: it has seen nothing
UNTRAINED: dict[str, Any] = {"tasks": {}, "draws": {}}
CHOICES = (
    "a result of meta_train, a folder or name of a theta, a LearnedOptimizer, a MetaOptimizer, "
    "or a constructor of one"
)
# what stands for a learned optimizer
Learned = MetaTrained | str | Path | LearnedOptimizer | MetaOptimizer | Callable[..., MetaOptimizer]


def learned_contender(
    name: str,
    optimizer: Learned,
    tasks: Mapping[str, TaskFamily],
    loops: LoopSettings,
    trust: tuple[str, ...],
) -> Contender:
    """A learned optimizer to compare.

    Args:
        name: in tables; empty for the one that it has itself.
        optimizer: what stands for it.
        tasks: that it is evaluated on.
        loops: how inner steps run there.
        trust: modules of others that a ``theta.json`` may name.

    Raises:
        TypeError: it is nothing of the kind.
        ValueError: there is no such theta, or it is damaged.
        ConnectionError: the hub cannot be reached.
    """
    if isinstance(optimizer, MetaTrained):
        label = name or optimizer.metadata["optimizer_name"]
        unrolls = _compiled(optimizer, tasks, loops)
        trained = optimizer.metadata
        return Contender(label, optimizer.optimizer.rebind, {}, trained, unrolls=unrolls)

    if isinstance(optimizer, str | Path):
        path, metadata = find_theta(optimizer)
        return theta_contender(name or metadata["optimizer_name"], path, metadata, trust)

    if isinstance(optimizer, LearnedOptimizer):
        meta_optimizer = optimizer.meta_optimizer
        label = name or type(meta_optimizer).__name__
        return Contender(label, meta_optimizer.rebind, {}, optimizer.metadata or {})
    if isinstance(optimizer, MetaOptimizer):
        return Contender(name or type(optimizer).__name__, optimizer.rebind, {}, {})

    if not callable(optimizer):
        raise TypeError(f"optimizer must be {CHOICES}, got {shown(optimizer)}.")
    check_optimizer(optimizer)
    target = optimizer.func if isinstance(optimizer, partial) else optimizer
    label = name or getattr(target, "__name__", "optimizer")
    return Contender(label, partial(_fresh, optimizer), {}, UNTRAINED)


def _fresh(constructor: Callable[..., MetaOptimizer], spec: PermutationSpec) -> MetaOptimizer:
    """An optimizer as it starts, with the theta that meta-training draws with seed 0."""
    torch.manual_seed(0)
    return built(partial(constructor, spec), "optimizer", MetaOptimizer)


def _compiled(
    result: MetaTrained, tasks: Mapping[str, TaskFamily], loops: LoopSettings
) -> dict[str, Unroll]:
    """The inner loops of a training that are those of the comparison, too."""
    unrolls = {}
    for name, family in tasks.items():
        bound = result.tasks.get(name)
        if bound is not None and bound.heldout.family is family and bound.runs_like(loops):
            unrolls[name] = bound.heldout
    return unrolls

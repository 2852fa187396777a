"""What ``meta_train`` is asked for, as its arguments name it, checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from learned_opt.api import arguments
from learned_opt.api.arguments import check_constructor, check_count
from learned_opt.core.checks import check_positive
from learned_opt.deploy.description import described
from learned_opt.estimators.base import GradientEstimator
from learned_opt.inner.truncation import Constant, Truncation
from learned_opt.optimizers.base import MetaOptimizer
from tasks.base import TaskFamily

PES_EXAMPLE = "functools.partial(PES, num_tasks=16, unroll_length=50, sigma=0.03)"
ADAM_EXAMPLE = "functools.partial(torch.optim.Adam, lr=0.01)"
# the outer optimizer of the commands, where nothing else is asked for
OUTER_RATE = 0.01
LAST_OUTER_RATE = 5e-4


@dataclass(frozen=True)
class Settings:
    """The arguments of ``meta_train`` that its numbers depend on, and some of how it runs.

    Args:
        tasks: by name.
        optimizer: as of ``meta_train``.
        estimator: as of ``meta_train``.
        steps: outer steps.
        horizons: inner steps, by task.
        seed: root of all randomness.
        outer_optimizer: None for that of the commands.
        schedule: None for none, and for that of the commands where that is their optimizer.
        gradient_clip: None for no limit.
        truncation: None for the horizon of each task.
        augment: None for none.
        weights: of the tasks.
        precision: of ``Unroll``.
        name: of the optimizer in tables; None for that of its class.
        blocks: pattern -> settings of the outer optimizer; empty for none.
    """

    tasks: Mapping[str, TaskFamily]
    optimizer: Callable[..., MetaOptimizer]
    estimator: Callable[..., GradientEstimator]
    steps: int
    horizons: Mapping[str, int]
    seed: int
    outer_optimizer: Callable[..., torch.optim.Optimizer] | None
    schedule: Callable[..., Any] | None
    gradient_clip: float | None
    truncation: Truncation | None
    augment: Callable[[TaskFamily], TaskFamily] | None
    weights: Mapping[str, float]
    precision: str
    name: str | None
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arguments.check_optimizer(self.optimizer)
        check_constructor(self.estimator, "estimator", GradientEstimator, PES_EXAMPLE)
        check_count(1, steps=self.steps)
        arguments.check_seed(self.seed)
        for horizon in self.horizons.values():
            check_count(1, horizon=horizon)
        if self.gradient_clip is not None:
            check_positive(gradient_clip=self.gradient_clip)

        if self.outer_optimizer is not None:
            kind = torch.optim.Optimizer
            check_constructor(self.outer_optimizer, "outer_optimizer", kind, ADAM_EXAMPLE)
        if self.schedule is not None:
            example = "functools.partial(CosineAnnealingLR, T_max=600)"
            kind = torch.optim.lr_scheduler.LRScheduler
            check_constructor(self.schedule, "schedule", kind, example)
        arguments.check_blocks(self.blocks)
        if self.truncation is not None and not isinstance(self.truncation, Truncation):
            raise TypeError(
                f"truncation must be a Truncation such as Constant(200), "
                f"got {arguments.shown(self.truncation)}."
            )

    @property
    def outer(self) -> tuple[Callable[..., torch.optim.Optimizer], Callable[..., Any] | None]:
        """Constructors of the outer optimizer and of its schedule."""
        if self.outer_optimizer is not None:
            return self.outer_optimizer, self.schedule

        adam = partial(torch.optim.Adam, lr=OUTER_RATE)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        default = partial(cosine, T_max=self.steps, eta_min=LAST_OUTER_RATE)
        return adam, self.schedule or default

    @property
    def label(self) -> str:
        """The name of the optimizer in tables."""
        if self.name is not None:
            return self.name
        target = self.optimizer.func if isinstance(self.optimizer, partial) else self.optimizer
        return getattr(target, "__name__", type(target).__name__)

    def truncation_of(self, task: str) -> Truncation:
        """When the chains of a task restart."""
        return self.truncation or Constant(self.horizons[task])

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, as plain data: a folder belongs to one of these."""
        values = {}
        for name, value in vars(self).items():
            # folders of versions without blocks belong to trainings without them
            is_left_out = name in ("tasks", "name") or (name == "blocks" and not value)
            if not is_left_out:
                values[name] = described(value)
        tasks = {name: described(family.describe()) for name, family in self.tasks.items()}
        return {"tasks": tasks, **values}

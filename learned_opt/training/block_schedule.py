"""Outer learning rates with a schedule for each block of theta, such as training in stages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from learned_opt.optimizers.schedule import Schedule, constant
from learned_opt.training.parameter_groups import NAME


@dataclass(frozen=True)
class After:
    """A factor of 0 before a step, then another schedule that counts its steps from there.

    A block at rate 0 rests: it is not moved, its gradient counts in no clipping, and the averages
    of the outer optimizer begin when it does.

    Args:
        start: the first step at which the block moves.
        then: the other schedule.

    Raises:
        ValueError: ``start`` is negative.

    >>> stage = After(10)
    >>> stage(torch.tensor(9.0)), stage(torch.tensor(10.0))
    (0.0, 1.0)
    """

    start: int
    then: Schedule = constant

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ValueError(f"start of a schedule must be at least 0, got {self.start}.")

    def __call__(self, step: Tensor) -> Tensor | float:
        """The factor of the learning rate at an outer step."""
        if step < self.start:
            return 0.0
        return self.then(step - self.start)


def block_schedule(
    optimizer: torch.optim.Optimizer,
    factors: Mapping[str, Schedule] = MappingProxyType({}),
    otherwise: Schedule = constant,
) -> LambdaLR:
    """A schedule of the outer learning rates, stepped once per outer step.

    Args:
        optimizer: the outer optimizer, whose parameter groups are those of ``parameter_groups``.
        factors: block -> ``(step) -> factor`` of its learning rate.
        otherwise: the schedule of blocks that are not among them.

    Raises:
        ValueError: there is no such block.

    >>> parameter = torch.nn.Parameter(torch.zeros(1))
    >>> groups = [{"params": [parameter], "name": "pointwise"}]
    >>> schedule = block_schedule(torch.optim.SGD(groups, lr=0.5), {"pointwise": After(1)})
    >>> schedule.get_last_lr()
    [0.0]
    """
    names = [group.get(NAME, "") for group in optimizer.param_groups]
    unknown = [name for name in factors if name not in names]
    if unknown:
        known = ", ".join(filter(None, names)) or "none"
        raise ValueError(
            f"factors of the schedule must be of the outer optimizer's blocks ({known}), "
            f"got {', '.join(unknown)}."
        )

    return LambdaLR(optimizer, [_of_number(factors.get(name, otherwise)) for name in names])


def _of_number(schedule: Schedule) -> Callable[[int], float]:
    """A schedule of whole steps; as a function it leaves nothing in checkpoints, which it could."""

    def factor(step: int) -> float:
        return float(schedule(torch.tensor(float(step))))

    return factor

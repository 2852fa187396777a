"""A task family with the meta-optimizer bound to its weights, ready for the inner loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from learned_opt.core import tree
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily


@dataclass(frozen=True)
class LoopSettings:
    """How the inner steps of a task run.

    Args:
        compile: as of ``Unroll``.
        device: as of ``Unroll``.
        precision: as of ``Unroll``.
        augment: constructor ``(family) -> family`` of what is trained on; None for the task itself.
    """

    compile: bool = True
    device: str = "cpu"
    precision: str = "float32"
    augment: Callable[[TaskFamily], TaskFamily] | None = None


@dataclass(frozen=True)
class BoundTask:
    """A task and the meta-optimizer on its weight space.

    Args:
        optimizer: on the weights of the task.
        unroll: the inner loop of what is trained on, augmented where that was asked for.
        heldout: the inner loop of the task as it is, for validation and comparison; the same as
            ``unroll`` without an augmentation, so that it is compiled once.
        num_params: of the inner network.
        settings: how its inner steps run.
    """

    optimizer: MetaOptimizer
    unroll: Unroll
    heldout: Unroll
    num_params: int
    settings: LoopSettings

    def runs_like(self, settings: LoopSettings) -> bool:
        """Whether ``heldout`` runs as these settings have it, whatever they augment."""
        left = replace(self.settings, augment=None)
        return left == replace(settings, augment=None)


class TaskBinder:
    """Binds one meta-optimizer to task after task; they share one theta.

    Args:
        constructor: of the meta-optimizer; called for the first task, where theta is drawn.
        seed: of theta.
        label: what messages call the meta-optimizer.
    """

    def __init__(
        self, constructor: Callable[[PermutationSpec], MetaOptimizer], seed: int, label: str
    ) -> None:
        self.constructor = constructor
        self.seed = seed
        self.label = label
        self.first: tuple[str, MetaOptimizer] | None = None

    def bind(
        self, name: str, family: TaskFamily, settings: LoopSettings, horizon: int
    ) -> BoundTask:
        """The next task.

        Args:
            name: of the task, for messages.
            family: the task.
            settings: how its inner steps run.
            horizon: inner steps of its trainings.

        Raises:
            ValueError: the spec does not fit the network, or theta cannot move from the weights of
                the first task to those of this one.
        """
        params, spec = symmetry_of(family)
        optimizer = self._optimizer(name, spec, settings.device).with_num_steps(horizon)

        heldout = _unroll(family, optimizer, settings)
        unroll = heldout
        if settings.augment is not None:
            unroll = _unroll(settings.augment(family), optimizer, settings)
        num_params = tree.num_elements(params)
        return BoundTask(optimizer, unroll, heldout, num_params, settings)

    def _optimizer(self, name: str, spec: PermutationSpec, device: str) -> MetaOptimizer:
        if self.first is None:
            # theta is drawn here alone: on the other tasks of a mix the same one is bound again
            torch.manual_seed(self.seed)
            optimizer = self.constructor(spec).to(device)
            self.first = (name, optimizer)
            return optimizer

        first, optimizer = self.first
        try:
            return optimizer.rebind(spec)
        except ValueError as error:
            raise ValueError(
                f"{self.label} cannot go from task {first} to task {name}: {error}"
            ) from error


def _unroll(family: TaskFamily, optimizer: MetaOptimizer, settings: LoopSettings) -> Unroll:
    return Unroll(family, optimizer, settings.compile, settings.device, settings.precision)

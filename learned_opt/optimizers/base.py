"""The contract of a meta-optimizer: an optimizer with parameters (theta) that are meta-trained."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn

from learned_opt.core import checks
from learned_opt.core.tree import Tree
from learned_opt.optimizers.update_scale import ENTRY
from learned_opt.symmetry.spec import PermutationSpec


class MetaOptimizer(nn.Module, ABC):
    """Reads weights and gradients of an inner network and writes their update.

    It is pure: state goes in, state comes out. Its ``nn.Parameter``s are theta. A subclass writes
    ``init_state`` and ``forward``, and ``rebind`` if its theta or its step depends on the spec.

    Args:
        spec: permutation spec of the inner network's parameters.

    Attributes:
        update_scale: what its updates scale with, see ``update_scale``: how muP corrects them.
        separable: whether the update of a tensor depends on that tensor, its kind and the step
            alone. Then any subset of the tensors is a weight space. The training loss may matter,
            which is the same for all.
        reads_spec: whether the step of one that is not separable depends on the spec: if not, the
            names of the tensors are all that it needs.
        reads_num_steps: whether it is told how many inner steps the training will have.
        needs_num_steps: whether it cannot do without.
        num_steps: those of one that reads them, None as long as nobody has told it.
        factor_needs: what ``forward`` reads of one more argument, ``factors``: those of the
            gradients of single examples, see ``factors.NEEDS``. Empty: there is no such argument.
    """

    update_scale: str = ENTRY
    separable: bool = False
    reads_spec: bool = True
    reads_num_steps: bool = False
    needs_num_steps: bool = False
    num_steps: int | None = None
    factor_needs: frozenset[str] = frozenset()

    def __init__(self, spec: PermutationSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def needs_factors(self) -> bool:
        """Whether ``forward`` takes the argument ``factors``."""
        return bool(self.factor_needs)

    @abstractmethod
    def init_state(self, params: Tree) -> Tree:
        """The optimizer state (opt_state) of fresh parameters.

        Args:
            params: inner parameters, name -> ``(*shape,)``.

        Returns:
            Tree: the int64 scalar ``step`` = 0, see ``init_step``, and all that is remembered.
        """

    @abstractmethod
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step.

        Args:
            grads: gradients, shaped like ``params``.
            state: opt_state of the step before.
            params: inner parameters.
            loss: scalar training loss at ``params``.

        Returns:
            tuple[Tree, Tree]: updates, which are ADDED to the parameters, and the next opt_state.
        """

    def step_(
        self, grads: Tree, state: Tree, params: Tree, rates: Mapping[str, tuple[float, float]]
    ) -> bool:
        """One inner step in place, equal to ``forward`` to rounding: ``p <- keep p + rate update``.

        Args:
            grads: gradients.
            state: opt_state, moved on, but for its ``step``.
            params: inner parameters, moved on.
            rates: (rate, keep) of each parameter.

        Returns:
            bool: False, and nothing is changed, where there is no kernel that does it.
        """
        return False

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same theta on another weight space; this module stays as it is.

        The default is for optimizers that know no spec: one theta makes the same steps on every
        weight space. Those whose theta or step depends on the spec override it.

        Args:
            spec: permutation spec of the other weight space.

        Returns:
            Self: a new module that holds these very parameters, not copies.

        Raises:
            ValueError: theta belongs to one weight space.
        """
        other = copy(self)
        other.spec = spec
        return other

    def simplified(self) -> Self:
        """One that makes the same steps with this very theta, without sums of zeros.

        It may be separable where this one is not. Its theta is no longer that of files.
        """
        return self

    def part(self, parameters: Collection[str]) -> Self:
        """The same optimizer on some tensors of its weight space, where it is separable."""
        return self.rebind(self.spec.part(parameters))

    def with_num_steps(self, num_steps: int) -> Self:
        """The same theta for trainings of another length; this module stays as it is.

        Whoever starts a training says how long it will be.

        Args:
            num_steps: inner steps.

        Returns:
            Self: a module that holds these very parameters, not copies; this one where it does not
            read the number.

        Raises:
            ValueError: it reads the number, which is below 1.
        """
        if not self.reads_num_steps:
            return self
        check_at_least_one(num_steps=num_steps)
        other = copy(self)
        other.num_steps = num_steps
        return other

    def rules(self, params: Tree) -> dict[str, str]:
        """The rule that each tensor is treated by, for people; empty where all have the same.

        Args:
            params: inner parameters; only names and shapes are read.
        """
        return {}

    def with_rules(self, rules: Mapping[str, str]) -> Self:
        """The same theta, some tensors treated by other rules; this module stays as it is.

        Args:
            rules: name of a tensor -> name of its rule.

        Returns:
            Self: a module that holds these very parameters, not copies.

        Raises:
            ValueError: the optimizer has one rule for all tensors, or a rule does not exist.
        """
        if not rules:
            return self
        raise ValueError(
            f"{type(self).__name__} treats all tensors by one rule, got rules {dict(rules)}."
        )


def init_step(params: Tree) -> Tensor:
    """The counter of a fresh opt_state: an int64 zero on the device of the parameters."""
    device = next(iter(params.values())).device
    return torch.zeros((), dtype=torch.int64, device=device)


def init_num_steps(optimizer: MetaOptimizer, like: Tensor) -> Tensor:
    """The length of the training in a fresh opt_state, so that every chain has its own.

    Args:
        optimizer: one that reads it.
        like: the counter of steps.

    Raises:
        ValueError: nobody has told it.
    """
    if optimizer.num_steps is None:
        name = type(optimizer).__name__
        raise ValueError(f"{name} needs num_steps, the inner steps of the training, got none.")
    return torch.full_like(like, optimizer.num_steps)


def check_num_steps(num_steps: int | None) -> None:
    """Check the length of a training, which may still be unknown.

    Raises:
        ValueError: it is below 1.
    """
    if num_steps is not None:
        check_at_least_one(num_steps=num_steps)


def check_at_least_one(**values: int) -> None:
    """Check sizes and counts by the names of their arguments.

    Raises:
        ValueError: one is below 1.
    """
    checks.check_at_least(1, **values)


def check_positive(**values: float) -> None:
    """Check rates and multipliers by the names of their arguments.

    Raises:
        ValueError: one is not positive.
    """
    checks.check_positive(**values)


def check_between_0_and_1(**values: float) -> None:
    """Check decays and shares by the names of their arguments.

    Raises:
        ValueError: one does not lie strictly between 0 and 1.
    """
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}.")

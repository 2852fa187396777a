"""The contract of a meta-optimizer: an optimizer whose own parameters (theta) can be meta-trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Self

from torch import Tensor, nn

from learned_opt.core.tree import Tree
from learned_opt.symmetry.spec import PermutationSpec


class MetaOptimizer(nn.Module, ABC):
    """Reads weights and gradients of an inner network and writes their update; pure, its parameters are theta.

    Args:
        spec: permutation spec of the inner network's parameters.

    Attributes:
        separable: whether the update of a tensor depends on that tensor and the step alone, so that any subset of the
            tensors is a weight space and no symmetry between them matters.
    """

    separable: bool = False

    def __init__(self, spec: PermutationSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def init_state(self, params: Tree) -> Tree:
        """Optimizer state (opt_state) for fresh parameters; holds the int64 scalar ``step`` = 0."""

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

    @abstractmethod
    def rebind(self, spec: PermutationSpec) -> Self:
        """The same theta on another weight space: a new module with these very parameters; this one stays as it is.

        Raises:
            ValueError: theta belongs to one weight space.
        """

    def _on(self, spec: PermutationSpec) -> Self:
        """A copy for another spec that shares submodules and parameters."""
        other = copy(self)
        other.spec = spec
        return other

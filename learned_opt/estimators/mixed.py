"""Several tasks in one outer step: an ordinary estimator for each, all at the same theta."""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch

from learned_opt.core import tree
from learned_opt.core.rng import draw_key
from learned_opt.core.rng import generator as source_of
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import GradientEstimator, Launch, MetaGradient, State
from learned_opt.estimators.share import Share


class MixedEstimator(GradientEstimator):
    """Weighted mean of the estimates of several tasks: the gradient of the weighted mean of their meta-losses.

    The tasks share nothing but theta: each estimator has its own chains, horizons and perturbations, whose draws
    depend on the task's name and not on what else is in the mix.

    Args:
        estimators: task -> estimator on the unroll of that task; the optimizers of all unrolls have one theta.
        weights: task -> weight, in any unit.

    Raises:
        ValueError: no task, weights of other tasks, or a weight that is not positive.
    """

    def __init__(
        self, estimators: Mapping[str, GradientEstimator], weights: Mapping[str, float]
    ) -> None:
        if not estimators:
            raise ValueError("estimators must hold at least one task, got none.")
        if keys := tree.difference(list(estimators), list(weights)):
            raise ValueError(f"weights must be of the tasks of the mix; {keys}.")
        for task, weight in weights.items():
            if weight <= 0:
                raise ValueError(f"weight must be positive, got {weight} for {task}.")
        total = sum(weights.values())
        self.estimators = dict(estimators)
        self.shares = {task: weights[task] / total for task in estimators}
        self.num_tasks = sum(estimator.num_tasks for estimator in estimators.values())
        self.unroll_length = max(estimator.unroll_length for estimator in estimators.values())

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all tasks together."""
        return sum(estimator.num_inner_steps for estimator in self.estimators.values())

    def shared(self, share: Share) -> Self:
        """See ``GradientEstimator.shared``."""
        other = copy.copy(self)
        other.estimators = {task: own.shared(share) for task, own in self.estimators.items()}
        return other

    def select(self, state: State) -> State:
        """See ``GradientEstimator.select``."""
        return {task: own.select(state[task]) for task, own in self.estimators.items()}

    def join(self, states: Sequence[State]) -> State:
        """See ``GradientEstimator.join``."""
        return {
            task: own.join([state[task] for state in states])
            for task, own in self.estimators.items()
        }

    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """The state of every task by its name."""
        root = draw_key(generator)
        return {
            task: own.init_state(theta, source_of(root, task))
            for task, own in self.estimators.items()
        }

    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        """One estimate of each task, see ``GradientEstimator.estimate``."""
        root = draw_key(generator)
        both = {
            task: own.estimate(theta, state[task], source_of(root, task))
            for task, own in self.estimators.items()
        }
        estimates = {task: estimate for task, (estimate, _) in both.items()}
        return self._mean(estimates), {task: after for task, (_, after) in both.items()}

    def launches(self, theta: Tree, state: State, generator: torch.Generator) -> dict[str, Launch]:
        """See ``GradientEstimator.launches``."""
        root, found = draw_key(generator), {}
        for task, own in self.estimators.items():
            (found[task],) = own.launches(theta, state[task], source_of(root, task)).values()
        return found

    def _mean(self, estimates: dict[str, MetaGradient]) -> MetaGradient:
        shares = [self.shares[task] for task in estimates]

        def mean(*leaves: torch.Tensor) -> torch.Tensor:
            return torch.stack(
                [share * leaf for share, leaf in zip(shares, leaves, strict=True)]
            ).sum(0)

        return MetaGradient(
            gradient=tree_map(mean, *(estimate.gradient for estimate in estimates.values())),
            meta_loss=self._mean_loss(estimates),
            num_inner_steps=self.num_inner_steps,
            finite=torch.cat([estimate.finite.all(0) for estimate in estimates.values()])[None],
            parts=estimates,
        )

    def _mean_loss(self, estimates: dict[str, MetaGradient]) -> torch.Tensor:
        """Over the tasks of which a chain stayed finite; nan when there is none."""
        losses = torch.stack([estimate.meta_loss for estimate in estimates.values()])
        shares = losses.new_tensor([self.shares[task] for task in estimates]).where(
            losses.isfinite(), 0
        )
        return (shares * losses.nan_to_num()).sum() / shares.sum()

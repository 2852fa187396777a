"""Several tasks in one outer step: an ordinary estimator for each, all at the same theta.

Legend: N tasks of an estimator that this process runs.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.checks import check_positive
from learned_opt.core.rng import draw_key
from learned_opt.core.rng import generator as source_of
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.estimators.population import UnrollStart
from learned_opt.estimators.share import Share
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared


class MixedEstimator(SharedEstimator):
    """Weighted mean of the estimates of several tasks.

    That is an estimate of the gradient of the weighted mean of their meta-losses. The tasks
    share nothing but theta: each estimator has its own chains, horizons and perturbations, whose
    draws depend on the task's name and not on what else is in the mix.

    Args:
        estimators: task -> estimator on the unroll of that task; the optimizers of all unrolls
            have one theta.
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
            check_positive(**{f"weight[{task}]": weight})

        total = sum(weights.values())
        self.estimators = {task: as_shared(each) for task, each in estimators.items()}
        self.weights = {task: weights[task] / total for task in estimators}  # they add up to 1
        self.num_tasks = sum(estimator.num_tasks for estimator in self.estimators.values())
        self.unroll_length = max(each.unroll_length for each in self.estimators.values())

    @property
    @override
    def num_inner_steps(self) -> int:
        return sum(estimator.num_inner_steps for estimator in self.estimators.values())

    @property
    @override
    def num_gradients(self) -> int:
        return sum(estimator.num_gradients for estimator in self.estimators.values())

    @override
    def shared(self, share: Share) -> Self:
        other = copy.copy(self)
        other.estimators = {}
        for task, estimator in self.estimators.items():
            other.estimators[task] = estimator.shared(share)
        return other

    @override
    def select(self, state: State) -> State:
        rows = {}
        for task, estimator in self.estimators.items():
            rows[task] = estimator.select(state[task])
        return rows

    @override
    def join(self, states: Sequence[State]) -> State:
        joined = {}
        for task, estimator in self.estimators.items():
            joined[task] = estimator.join([state[task] for state in states])
        return joined

    @override
    def unroll_starts(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> dict[str, UnrollStart]:
        root = draw_key(generator)

        starts = {}
        for task, estimator in self.estimators.items():
            source = source_of(root, task)
            for start in estimator.unroll_starts(theta, state[task], source).values():
                starts[task] = start  # the only one
        return starts

    @override
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        root = draw_key(generator)

        state = {}
        for task, estimator in self.estimators.items():
            state[task] = estimator.init_state(theta, source_of(root, task))
        return state

    @override
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        root = draw_key(generator)

        estimates = {}
        after = {}
        for task, estimator in self.estimators.items():
            source = source_of(root, task)
            estimates[task], after[task] = estimator.estimate(theta, state[task], source)
        return self._mean(estimates), after

    def _mean(self, estimates: dict[str, MetaGradient]) -> MetaGradient:
        weights = [self.weights[task] for task in estimates]

        def mean(*gradients: Tensor) -> Tensor:
            weighed = [w * gradient for w, gradient in zip(weights, gradients, strict=True)]
            return torch.stack(weighed).sum(0)

        finite = [estimate.finite.all(0) for estimate in estimates.values()]  # (N,) each
        return MetaGradient(
            gradient=tree_map(mean, *(estimate.gradient for estimate in estimates.values())),
            meta_loss=self._mean_loss(estimates),
            num_inner_steps=self.num_inner_steps,
            finite=torch.cat(finite)[None],
            parts=estimates,
        )

    def _mean_loss(self, estimates: dict[str, MetaGradient]) -> Tensor:
        """Over the tasks of which a chain stayed finite; nan when there is none."""
        losses = torch.stack([estimate.meta_loss for estimate in estimates.values()])
        all_weights = losses.new_tensor([self.weights[task] for task in estimates])
        weights = all_weights.where(losses.isfinite(), 0)
        return (weights * losses.nan_to_num()).sum() / weights.sum()

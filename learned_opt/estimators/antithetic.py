"""Antithetic pairs: what the evolution strategies share.

A pair is two chains, run with theta + eps and theta - eps on the same task, initial parameters
and batches. Some estimators run a third chain beside it, with theta itself, for its gradient.

Legend: N pairs, M = 2 N chains, or 3 N with the third ones, K inner steps of an unroll.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.checks import check_between, check_positive
from learned_opt.core.rng import draw_key, generator
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import MetaGradient, State
from learned_opt.estimators.chain_estimator import ChainEstimator
from learned_opt.estimators.chain_gradients import (
    ChainGradients,
    chain_gradients,
    check_unroll_length,
    cost_of_gradient,
)
from learned_opt.estimators.control_variate import ControlVariate, Fit
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.pairs import (
    Noise,
    Perturbed,
    predicted_difference,
    weighted_sum,
    where_pairs,
)
from learned_opt.estimators.perturbation import Draw, Perturbation
from learned_opt.estimators.population import (
    Population,
    UnrollStart,
    join_copies,
    select_copies,
)
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll

# below, theta + eps rounds to theta in float32; above, nothing of theta is left in it
SMALLEST_SIGMA = 1e-6
LARGEST_SIGMA = 1e3


@dataclass(eq=False)
class AntitheticES(ChainEstimator):
    """``g = mean direction (L(theta + eps) - L(theta - eps)) / (2 sigma^2)``.

    Subclasses choose eps and direction. The mean is over the pairs of which all chains stay
    finite; the others restart at the next estimate.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs N.
        unroll_length: inner steps K per estimate.
        sigma: standard deviation of eps, before the factors of ``perturbation``.
        meta_loss: the number that an unroll counts as.
        perturbation: distribution of eps.
        control: lowers the variance by gradients of chains that run with theta itself.

    Raises:
        ValueError: a value is out of its range.
    """

    unroll: Unroll
    truncation: Truncation
    num_tasks: int
    unroll_length: int
    sigma: float
    meta_loss: MetaLoss = field(default_factory=MetaLoss)
    perturbation: Perturbation = field(default_factory=Perturbation)
    control: ControlVariate | None = None

    def __post_init__(self) -> None:
        check_positive(sigma=self.sigma)
        check_between(SMALLEST_SIGMA, LARGEST_SIGMA, sigma=self.sigma)
        self.perturbation.check(dict(self.unroll.optimizer.named_parameters()))
        if self.backpropagates:
            check_unroll_length(self.unroll_length)

        self.population = Population(
            self.unroll,
            self.truncation,
            self.num_tasks,
            self.unroll_length,
            3 if self.runs_theta else 2,
            self.meta_loss,
        )

    @property
    def runs_theta(self) -> bool:
        """Whether a third chain beside every pair runs with theta itself, for its gradient."""
        return self.control is not None

    @property
    def recomputes(self) -> bool:
        """Whether a backward pass computes every inner step again."""
        return self.control is not None and self.control.remat

    @property
    @override
    def backpropagates(self) -> bool:
        return self.runs_theta

    @property
    @override
    def num_gradients(self) -> int:
        third = cost_of_gradient(self.recomputes) if self.runs_theta else 0
        return (2 + third) * self.num_tasks * self.unroll_length

    @override
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        state = self.population.init_state(generator) | self.init_memory(theta)
        if self.control is None:
            return state
        return state | {"control": self.control.init_memory(len(self.population.tasks))}

    @override
    def unroll_start(self, theta: Tree, state: State, generator: torch.Generator) -> UnrollStart:
        return self._perturb(theta, state, generator).start

    @override
    @torch.no_grad()
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        perturbed = self._perturb(theta, state, generator)
        losses, after = self.population.run(perturbed.start.copies(0, 2))
        finite = losses.isfinite()  # (2, N)
        if perturbed.unperturbed is not None:
            finite = torch.cat([finite, perturbed.unperturbed.losses.isfinite()])
            after = join_copies(after, perturbed.unperturbed.state)

        estimate, fitted = self._estimate(perturbed, losses, finite, state)
        advanced = self.population.advance(after, finite.all(0))
        return estimate, advanced | perturbed.noise.memory | fitted

    @abstractmethod
    def init_memory(self, theta: Tree) -> State:
        """What the state holds beside the chains before the first estimate."""

    @abstractmethod
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        """Choose the perturbations of one unroll.

        Args:
            drawn: fresh draws.
            state: of the estimate before.
            restarted: the pairs that have just restarted, ``(N,)`` bool.
        """

    def draw(
        self,
        theta: Tree,
        state: State,
        sources: Sequence[torch.Generator],
        unperturbed: ChainGradients | None,
    ) -> Draw:
        """Draw the noise of one unroll.

        Args:
            theta: meta-parameters.
            state: of the estimate before.
            sources: a generator for each pair.
            unperturbed: gradients of the chains that run with theta itself, where there are any.
        """
        return self.perturbation.draw(theta, self.sigma, sources)

    def zeros(self, theta: Tree) -> Tree:
        """Zero for every pair: leaves ``(N, *shape)``."""
        num_pairs = len(self.population.tasks)
        return tree_map(lambda leaf: leaf.detach().new_zeros(num_pairs, *leaf.shape), theta)

    @torch.no_grad()
    def _perturb(self, theta: Tree, state: State, source: torch.Generator) -> Perturbed:
        """Restart what is past its horizon and perturb theta for the unroll that follows."""
        root = draw_key(source)
        tasks = self.population.tasks
        chains, restarted = self.population.restart(state, root)
        unperturbed = self._run_theta(theta, chains, root) if self.runs_theta else None

        sources = [generator(root, task, "eps") for task in tasks]
        drawn = self.draw(theta, state, sources, unperturbed)
        noise = self.noise(drawn, state, restarted)

        def perturbed(t: Tensor, e: Tensor) -> Tensor:
            both = [t + e, t - e]
            return torch.cat([*both, t.expand_as(e)] if self.runs_theta else both)

        thetas = tree_map(perturbed, theta, noise.eps)  # (M, *shape)
        start = UnrollStart(thetas, chains, root, tasks)
        return Perturbed(start, noise, restarted, unperturbed)

    def _run_theta(self, theta: Tree, chains: State, root: int) -> ChainGradients:
        """Run the third chains; a gradient is 0 where it is not finite or theta is fixed."""
        tasks = self.population.tasks
        copies = tree.contiguous(tree.expand(theta, len(tasks)))  # (N, *shape)
        third = select_copies(chains, len(tasks), 2, 3)
        start = UnrollStart(copies, third, root, tasks)
        result = chain_gradients(self.population, start, self.recomputes)

        zeros = self.zeros(theta)
        gradients = where_pairs(result.finite[0], result.gradients, zeros)
        for name, leaf in theta.items():
            if self.perturbation.is_fixed(name, leaf):
                gradients[name] = zeros[name]
        return result._replace(gradients=gradients)

    def _estimate(
        self, perturbed: Perturbed, losses: Tensor, finite: Tensor, state: State
    ) -> tuple[MetaGradient, State]:
        """This process's part of the mean over the finite pairs, and the memory of the control.

        Args:
            perturbed: what ran.
            losses: of the pairs, ``(2, N)``.
            finite: whether the chains are, ``(2, N)`` or ``(3, N)``.
            state: of the estimate before.
        """
        healthy = finite.all(0)  # (N,)
        count, meta_loss = self.population.mean(losses.mean(0), healthy)
        difference = torch.where(healthy, losses[0] - losses[1], 0)
        fit = self._fit(perturbed, difference, healthy, state)
        if fit is not None:
            difference = difference - fit.explained

        weight = difference / (2 * self.sigma**2 * count)
        gradient = weighted_sum(weight, perturbed.noise.direction)
        if fit is not None and perturbed.unperturbed is not None:
            controlled = weighted_sum(fit.coefficients / count, perturbed.unperturbed.gradients)
            gradient = tree.add(gradient, controlled)

        estimate = MetaGradient(
            gradient=gradient,
            meta_loss=meta_loss,
            num_inner_steps=self.num_inner_steps,
            finite=finite,
            figures=fit.figures if fit else {},
        )
        return estimate, {"control": fit.memory} if fit else {}

    def _fit(
        self, perturbed: Perturbed, difference: Tensor, healthy: Tensor, state: State
    ) -> Fit | None:
        """The control variate of the unroll; None where there is no control."""
        if self.control is None or perturbed.unperturbed is None:
            return None
        return self.control.fit(
            state["control"],
            perturbed.restarted,
            difference,
            torch.where(healthy, predicted_difference(perturbed), 0),
            self.population.share,
        )

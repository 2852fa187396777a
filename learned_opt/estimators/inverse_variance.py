"""ES and gradients through the perturbed unrolls, combined by their measured variances.

Legend: N pairs that this process runs, M = 2 N chains.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import MetaGradient, State
from learned_opt.estimators.chain_gradients import chain_gradients, cost_of_gradient
from learned_opt.estimators.pairs import Noise, where_pairs
from learned_opt.estimators.perturbation import Draw


@dataclass(eq=False)
class InverseVariance(AntitheticES):
    """``(v_rp mean_es + v_es mean_rp) / (v_es + v_rp)`` for every entry of theta.

    Every pair gives two samples of the gradient of the loss smoothed by eps: that of ES, and that
    of reparametrisation, the mean of the gradients of its two losses at theta + eps and
    theta - eps. Means and variances v are taken over the pairs of all processes, entry by entry;
    an entry follows backpropagation where that is quiet, and ES where it has exploded. The weights
    come from the samples that they weigh, so that the estimate has a bias of the order of
    1 / num_tasks where samples are skewed; in unrolls shorter than the horizon both parts are
    blind to what theta did before. A pair of which a loss or gradient is not finite is left out.

    The floor of the source under the variances, 1e-8, is left out, for it depends on the unit of
    the loss: where both variances are 0, both means count half. So is its clipping of every entry
    of the result, which is the outer optimizer's.

    Args:
        remat: the backward pass computes every inner step again, so that long unrolls fit;
            compiled steps always do.
            The others as of ``AntitheticES``, without ``control``; at least two tasks.

    Source: Metz et al. 2019 (arXiv 1810.10180).
    """

    remat: bool = True

    def __post_init__(self) -> None:
        if self.control is not None:
            raise ValueError(
                "control must be null in InverseVariance, which has gradients in it already."
            )
        super().__post_init__()

    @property
    @override
    def backpropagates(self) -> bool:
        return True

    @property
    @override
    def num_gradients(self) -> int:
        return cost_of_gradient(self.remat) * self.num_inner_steps

    @override
    def init_memory(self, theta: Tree) -> State:
        return {}

    @override
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        return Noise(drawn.eps, drawn.score, {})

    @override
    @torch.no_grad()
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        perturbed = self._perturb(theta, state, generator)
        result = chain_gradients(self.population, perturbed.start, self.remat)
        finite = result.losses.isfinite() & result.finite  # (2, N)
        healthy = finite.all(0)

        count, meta_loss = self.population.mean(result.losses.mean(0), healthy)
        slope = (result.losses[0] - result.losses[1]) / (2 * self.sigma**2)  # (N,)
        es = tree_map(lambda leaf: _scaled(leaf, slope), perturbed.noise.direction)
        rp = self._reparametrised(theta, result.gradients)
        samples = where_pairs(healthy, {"es": es, "rp": rp}, self.zeros({"es": theta, "rp": theta}))
        gradient, weight = self._combine(samples, healthy, count)

        estimate = MetaGradient(
            gradient=gradient,
            meta_loss=meta_loss,
            num_inner_steps=self.num_inner_steps,
            finite=finite,
            figures={"backpropagation_weight": weight},
        )
        return estimate, self.population.advance(result.state, healthy)

    def _reparametrised(self, theta: Tree, gradients: Tree) -> Tree:
        """Means over the two chains of every pair, ``(N, *shape)``; 0 where theta is fixed."""
        means = tree_map(lambda leaf: leaf.unflatten(0, (2, -1)).mean(0), gradients)
        for name, leaf in theta.items():
            if self.perturbation.is_fixed(name, leaf):
                means[name] = torch.zeros_like(means[name])
        return means

    def _combine(self, samples: Tree, healthy: Tensor, count: Tensor) -> tuple[Tree, Tensor]:
        """This process's part of the combination, and the mean weight of the second mean.

        Args:
            samples: ``es`` and ``rp``, leaves ``(N, *shape)``, 0 for pairs that are left out.
            healthy: the pairs that are not, ``(N,)`` bool.
            count: their number in all processes.
        """
        share = self.population.share
        sums = tree_map(lambda leaf: leaf.sum(0), samples)
        totals = share.total_tree(tree_map(torch.clone, sums))

        def deviations(leaf: Tensor, total: Tensor) -> Tensor:
            return _scaled((leaf - total / count).square(), healthy.to(leaf)).sum(0)

        # all variances have one divisor, which the weights do not depend on
        spread = share.total_tree(tree_map(deviations, samples, totals))
        weights = tree_map(_weight_of_second, spread["es"], spread["rp"])

        def combined(weight: Tensor, es: Tensor, rp: Tensor) -> Tensor:
            return ((1 - weight) * es + weight * rp) / count

        flat = torch.cat([leaf.reshape(-1) for leaf in weights.values()])
        return tree_map(combined, weights, sums["es"], sums["rp"]), flat.mean()


def _scaled(values: Tensor, factors: Tensor) -> Tensor:
    """Rows ``(N, *shape)`` times factors ``(N,)``."""
    return values * factors.to(values).reshape(-1, *[1] * (values.ndim - 1))


def _weight_of_second(first: Tensor, second: Tensor) -> Tensor:
    """Weight of a mean with the second variance beside one with the first."""
    total = first + second
    return torch.where(total > 0, first / total.where(total > 0, 1), 0.5)

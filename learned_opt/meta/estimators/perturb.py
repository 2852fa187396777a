"""Antithetic pairs: what ES and PES share.

A pair is two chains, run with theta + eps and theta - eps on the same task, initial parameters and batches.

Legend: N pairs, 2N chains (all plus chains, then all minus chains), K unroll length.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.meta.estimators.base import MetaGradient, State
from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Unroll
from learned_opt.rng import draw_key, generator
from learned_opt.tree import Tree, tree_map


class PairLosses(NamedTuple):
    """Mean losses ``(N,)`` over one unroll at theta + eps and theta - eps."""

    plus: Tensor
    minus: Tensor

    @property
    def finite(self) -> Tensor:
        """Pairs of which both losses are finite, ``(N,)`` bool."""
        return self.plus.isfinite() & self.minus.isfinite()


class AntitheticPairs:
    """Keeps N antithetic pairs running: restarts, perturbations, unrolls.

    A chain restarts at the first unroll boundary at or after its horizon. Restarts are staggered: the first horizon of
    each pair is cut at an unroll boundary, stratified over the pairs, so that every outer step sees all parts of the
    horizon in equal shares.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: pairs N.
        unroll_length: inner steps K per estimate.
        sigma: standard deviation of eps.
    """

    def __init__(
        self, unroll: Unroll, truncation: Truncation, num_tasks: int, unroll_length: int, sigma: float
    ) -> None:
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {num_tasks}.")
        if unroll_length < 1:
            raise ValueError(f"unroll_length must be at least 1, got {unroll_length}.")
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}.")
        self.unroll, self.truncation = unroll, truncation
        self.num_tasks, self.unroll_length, self.sigma = num_tasks, unroll_length, sigma

    def init_state(self, source: torch.Generator) -> State:
        """Fresh chains with staggered step counters."""
        root = draw_key(source)
        horizon = self._horizons(root, range(self.num_tasks))
        boundaries = -(-horizon // self.unroll_length)
        offset = torch.rand((), generator=generator(root, "offset"))
        uniform = (torch.arange(self.num_tasks) + offset) / self.num_tasks  # stratified
        chains = self.unroll.start([(root, i) for i in range(self.num_tasks)] * 2)
        return {"chains": chains, "horizon": horizon, "step": (uniform * boundaries).long() * self.unroll_length}

    def restart(self, state: State, root: int) -> tuple[State, Tensor]:
        """Restart the pairs that are past their horizon; returns also which, ``(N,)`` bool on the CPU."""
        finished = state["step"] >= state["horizon"]
        which = finished.nonzero().flatten().tolist()
        if not which:
            return state, finished
        fresh = self.unroll.start([(root, i) for i in which] * 2)
        index = torch.tensor([*which, *(i + self.num_tasks for i in which)], device=self.unroll.device)
        chains = tree_map(lambda old, new: old.index_copy(0, index, new), state["chains"], fresh)
        horizon = state["horizon"].clone()
        horizon[finished] = self._horizons(root, which)
        return {"chains": chains, "horizon": horizon, "step": state["step"].where(~finished, 0)}, finished

    def perturbations(self, theta: Tree, root: int) -> Tree:
        """Eps ~ N(0, sigma^2), leaves ``(N, *shape)``, one generator for each pair."""
        sources = [generator(root, i, "eps") for i in range(self.num_tasks)]

        def draw(leaf: Tensor) -> Tensor:
            normal = torch.stack([torch.randn(leaf.shape, generator=source) for source in sources])
            return (self.sigma * normal).to(leaf)

        return tree_map(draw, theta)

    def run(self, theta: Tree, eps: Tree, state: State, root: int) -> tuple[PairLosses, State]:
        """Unroll all pairs by K steps; a pair with a loss that is not finite restarts at the next estimate."""
        both = tree_map(lambda t, e: torch.cat([t + e, t - e]), theta, eps)
        keys = [(root, i) for i in range(self.num_tasks)]
        batches = self.unroll.batches(keys, state["chains"], self.unroll_length)
        batches = tree_map(lambda leaf: torch.cat([leaf, leaf], 1), batches)  # both chains of a pair see the same
        losses, chains = self.unroll.run(both, state["chains"], batches)
        pairs = PairLosses(*losses.mean(0).unflatten(0, (2, self.num_tasks)))
        step = (state["step"] + self.unroll_length).where(pairs.finite.cpu(), state["horizon"])
        return pairs, {"chains": chains, "horizon": state["horizon"], "step": step}

    def _horizons(self, root: int, which: range | list[int]) -> Tensor:
        return torch.tensor([self.truncation.sample(generator(root, i, "horizon")) for i in which])


def antithetic_estimate(direction: Tree, losses: PairLosses, pairs: AntitheticPairs) -> MetaGradient:
    """``mean_n direction_n (L+_n - L-_n) / (2 sigma^2)`` over the pairs with finite losses.

    Args:
        direction: leaves ``(N, *shape)``: eps for ES, the sum of eps since the restart for PES.
        losses: losses of the pairs.
        pairs: what ran them.
    """
    finite, count = losses.finite, losses.finite.sum().clamp(min=1)
    weight = torch.where(finite, losses.plus - losses.minus, 0) / (2 * pairs.sigma**2 * count)
    meta_loss = torch.where(finite, losses.plus + losses.minus, 0).sum() / (2 * count)
    return MetaGradient(
        gradient=tree_map(lambda leaf: torch.tensordot(weight.to(leaf), leaf, 1), direction),
        meta_loss=torch.where(finite.any(), meta_loss, torch.nan),
        num_inner_steps=2 * pairs.num_tasks * pairs.unroll_length,
        num_nonfinite=(~finite).sum(),
    )

"""Nowcasting as a meta-optimizer: another one's steps, and from time to time a prediction.

Legend: S = 5 snapshots.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_num_steps,
    init_num_steps,
    init_step,
)
from learned_opt.optimizers.nowcast.networks import FARTHEST, NUM_SNAPSHOTS, EntryNetwork
from learned_opt.optimizers.nowcast.prediction import (
    EntryPrediction,
    LinearExtrapolation,
    Predictor,
    check_period,
)
from learned_opt.optimizers.nowcast.roles import rank_role
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import with_modules


class Nowcast(MetaOptimizer):
    """What ``learned_opt.Nowcaster`` does, in every chain: theta is that of both parts.

    Chains cannot skip what others need, so that a prediction is computed at every inner step and
    used at every ``period``-th.

    Args:
        spec: permutation spec of the inner parameters.
        base: constructor ``(spec)`` of the optimizer that makes the other steps.
        network: constructor of the network that reads every weight by itself; None for straight
            lines through the snapshots, the control.
        period: inner steps from one prediction to the next, a multiple of 5.
        num_steps: inner steps of the training; None where whoever starts it will tell, which
            meta-training and evaluation do.

    Raises:
        ValueError: a value is out of its range.

    Source: Knyazev et al. 2025 (arXiv 2409.04434). Differences: tensors are told apart by their
    rank alone, and the training is the framework's, on the losses that predictions lead to.
    """

    reads_num_steps = True
    needs_num_steps = True

    def __init__(
        self,
        spec: PermutationSpec,
        base: Callable[[PermutationSpec], MetaOptimizer],
        network: Callable[[], EntryNetwork] | None = EntryNetwork,
        period: int = 50,
        num_steps: int | None = None,
    ) -> None:
        super().__init__(spec)
        check_period(period)
        check_num_steps(num_steps)
        self.base = base(spec)
        self.network = None if network is None else network()
        self.period = period
        self.num_steps = num_steps
        self.separable = self.base.separable
        self.reads_spec = self.base.reads_spec
        self.factor_needs = self.base.factor_needs

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        return with_modules(super().rebind(spec), base=self.base.rebind(spec))

    @override
    def with_num_steps(self, num_steps: int) -> Self:
        base = self.base.with_num_steps(num_steps)
        return with_modules(super().with_num_steps(num_steps), base=base)

    @override
    def init_state(self, params: Tree) -> Tree:
        step = init_step(params)
        snapshots = {}
        for name, param in params.items():
            snapshots[name] = param.new_zeros(NUM_SNAPSHOTS, *param.shape)
        return {
            "step": step,
            "num_steps": init_num_steps(self, step),
            "base": self.base.init_state(params),
            "snapshots": snapshots,
        }

    @override
    def forward(
        self, grads: Tree, state: Tree, params: Tree, loss: Tensor, factors: Any = None
    ) -> tuple[Tree, Tree]:
        more = (factors,) if self.needs_factors else ()
        updates, base = self.base(grads, state["base"], params, loss, *more)

        calls = state["step"] + 1
        snapshots = self._snapshots(state["snapshots"], params, calls)
        number = torch.div(calls, self.period, rounding_mode="floor")
        count = torch.div(state["num_steps"], self.period, rounding_mode="floor")
        is_due = (calls % self.period == 0) & (number <= count)
        predicted = self._predictor(params).predict(snapshots, steps_ahead(number, count))

        moves = {}
        for name, update in updates.items():
            moves[name] = torch.where(is_due, predicted[name] - params[name], update)
        # a prediction is no step of the other optimizer, whose state stays
        kept = tree.tree_map(lambda old, new: torch.where(is_due, old, new), state["base"], base)
        return moves, {
            "step": calls,
            "num_steps": state["num_steps"],
            "base": kept,
            "snapshots": snapshots,
        }

    def _snapshots(self, snapshots: Tree, params: Tree, calls: Tensor) -> Tree:
        """The snapshots with the parameters at the turn of this step, if it has one."""
        stride = self.period // NUM_SNAPSHOTS
        turn = (torch.div(calls, stride, rounding_mode="floor") - 1) % NUM_SNAPSHOTS
        places = torch.arange(NUM_SNAPSHOTS, device=calls.device)
        is_here = (places == turn) & (calls % stride == 0)  # (S,)

        kept = {}
        for name, param in params.items():
            mask = is_here.reshape(-1, *[1] * param.ndim)
            kept[name] = torch.where(mask, param, snapshots[name])
        return kept

    def _predictor(self, params: Tree) -> Predictor:
        if self.network is None:
            return LinearExtrapolation()
        roles = {name: (rank_role(param.ndim),) for name, param in params.items()}
        return EntryPrediction(self.network, roles)


def steps_ahead(number: Tensor, count: Tensor) -> Tensor:
    """How many snapshots ahead a prediction looks: from 40 down to 1, squares of equal steps.

    Args:
        number: of the prediction, from 1.
        count: of all.

    >>> steps_ahead(torch.arange(1, 11), torch.tensor(10)).tolist()
    [40, 33, 26, 21, 16, 11, 8, 5, 3, 1]
    """
    share = (number - 1).double() / (count - 1).clamp_min(1)
    root = sqrt(FARTHEST) + (1 - sqrt(FARTHEST)) * share
    return root.square().round().long().clamp(1, FARTHEST)

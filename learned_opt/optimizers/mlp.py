"""The per-parameter MLP: one small network reads the features of a weight and writes its update."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_positive,
    init_step,
)
from learned_opt.optimizers.features import (
    NO_FEATURES,
    OF_MOMENTUM_FEATURES,
    TIME_SCALES,
    Features,
    JoinedFeatures,
    MomentumFeatures,
    Reading,
    join,
    time_features,
)
from learned_opt.optimizers.fused_function import FusedFunction
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise
from learned_opt.unf.stack import UNF


class MLPOptimizer(MetaOptimizer):
    """``update = -step_mult direction exp(exp_mult magnitude)``.

    (direction, magnitude) = MLP(features, time). theta is the MLP, and what the features hold.
    Unlike ``UNFOptimizer`` with pointwise layers, it has no nominal momentum term: at the start its
    updates point where the random network says.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        features: constructor of the inputs; with ``MomentumFeatures`` and the time code there are
            19.
        hidden_layers: number of hidden layers.
        hidden_size: width of each.
        step_mult: step size, in units of parameters.
        exp_mult: how strongly the magnitude acts.
        extra_features: name -> constructor of what is read beside ``features``.

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Metz et al. 2019 (arXiv 1810.10180), as in the code of ``MLPLOpt``; the initial weights
    are normal, not truncated normal.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        features: Callable[[], Features] = MomentumFeatures,
        hidden_layers: int = 2,
        hidden_size: int = 32,
        step_mult: float = 1e-3,
        exp_mult: float = 1e-3,
        extra_features: Mapping[str, Callable[[], Features]] = NO_FEATURES,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_layers=hidden_layers, hidden_size=hidden_size)
        check_positive(step_mult=step_mult, exp_mult=exp_mult)

        self.features = features()
        self.extra = JoinedFeatures(extra_features) if extra_features else None
        num_inputs = self.features.num_channels + len(TIME_SCALES)
        self.factor_needs = self.features.factor_needs
        self.separable = self.features.separable
        if self.extra is not None:
            num_inputs += self.extra.num_channels
            self.factor_needs |= self.extra.factor_needs
            self.separable &= self.extra.separable
        widths = (num_inputs, *[hidden_size] * hidden_layers, 2)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.step_mult = step_mult
        self.exp_mult = exp_mult

    @override
    def init_state(self, params: Tree) -> Tree:
        state = {"step": init_step(params), "features": self.features.init_state(params)}
        if self.extra is not None:
            state["extra"] = self.extra.init_state(params)
        return state

    @override
    def forward(
        self, grads: Tree, state: Tree, params: Tree, loss: Tensor, factors: Any = None
    ) -> tuple[Tree, Tree]:
        del loss
        dtype = next(iter(params.values())).dtype
        reading = Reading(grads, params, state["step"] + 1, factors, self.spec)
        more = None
        extra_state: Tree = {}
        if self.extra is not None:
            more, extra_state["extra"] = self.extra(reading, state["extra"])

        time = time_features(state["step"], dtype)  # the same for all entries: (11,)
        fused = FusedFunction(self.function, self.spec, OF_MOMENTUM_FEATURES, time, params)
        if isinstance(self.features, MomentumFeatures) and fused.fits:
            momenta = state["features"]["momenta"]
            outputs, momenta = fused(grads, momenta, [], more, gradient_first=True)
            accumulators = {"momenta": momenta}
        else:
            inputs, accumulators = self.features(reading, state["features"])
            outputs = self.function(join(inputs, more) if more is not None else inputs, time)
        updates = tree_map(self._update, outputs)  # of (*shape, 2)
        # in the order of init_state: a state of another order would be compiled for anew
        next_state = {"step": reading.step, "features": accumulators, **extra_state}
        return updates, next_state

    def _update(self, output: Tensor) -> Tensor:
        direction, magnitude = output.unbind(-1)
        return -self.step_mult * direction * torch.exp(self.exp_mult * magnitude)

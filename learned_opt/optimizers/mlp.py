"""The per-parameter MLP: one small network reads the features of a weight and writes its update."""

from collections.abc import Callable

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
from learned_opt.optimizers.features import TIME_SCALES, Features, MomentumFeatures, time_features
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

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Metz et al. 2019 (arXiv 1810.10180), as in the code of ``MLPLOpt``; the initial weights
    are normal, not truncated normal.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        features: Callable[[], Features] = MomentumFeatures,
        hidden_layers: int = 2,
        hidden_size: int = 32,
        step_mult: float = 1e-3,
        exp_mult: float = 1e-3,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_layers=hidden_layers, hidden_size=hidden_size)
        check_positive(step_mult=step_mult, exp_mult=exp_mult)

        self.features = features()
        num_inputs = self.features.num_channels + len(TIME_SCALES)
        widths = (num_inputs, *[hidden_size] * hidden_layers, 2)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.step_mult = step_mult
        self.exp_mult = exp_mult

    @override
    def init_state(self, params: Tree) -> Tree:
        return {"step": init_step(params), "features": self.features.init_state(params)}

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss
        dtype = next(iter(params.values())).dtype
        inputs, accumulators = self.features(grads, state["features"], params)
        time = time_features(state["step"], dtype)  # the same for all entries: (11,)
        outputs = self.function(inputs, time)  # (*shape, 2)
        updates = tree_map(self._update, outputs)
        return updates, {"step": state["step"] + 1, "features": accumulators}

    def _update(self, output: Tensor) -> Tensor:
        direction, magnitude = output.unbind(-1)
        return -self.step_mult * direction * torch.exp(self.exp_mult * magnitude)

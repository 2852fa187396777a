"""Celo2: a per-parameter MLP whose output only points the way.

Every tensor that it moves takes a step of the same size.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_positive,
    init_step,
)
from learned_opt.optimizers.features import Reading
from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, StepInfo, log_parameter
from learned_opt.optimizers.linear_algebra import orthogonalise
from learned_opt.optimizers.relative_step import clip_gradients
from learned_opt.optimizers.schedule import Schedule, constant
from learned_opt.optimizers.update_scale import ENTRY, ORTHOGONAL_ENTRY
from learned_opt.optimizers.velo_features import VeLOFeatures
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise
from learned_opt.unf.stack import UNF


class Celo2(MetaOptimizer):
    """``update = -lr u / rms(u)``, u the MLP's output for a matrix, orthogonalised; else a rule.

    A matrix is a tensor of two axes or more; each position of a kernel is a matrix by itself, and
    so are its means. theta = (log lr, the MLP, what the rule has). The step is as long at the end
    of a training as at its start, so the learning rate wants a schedule.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        hidden_layers: hidden layers of the MLP.
        hidden_size: width of each.
        lr: root mean square of a step.
        vector_mult: learning rate of the rule for vectors, in units of lr.
        vectors: constructor of the rule for vectors and scalars; None to move them as matrices,
            with 15 of the 30 features.
        orthogonal: set the singular values of u to about 1, but for vectors.
        schedule: step -> factor of the learning rate.

    Raises:
        ValueError: a size or rate is not positive.

    Source: Moudgil et al. 2026 (arXiv 2602.19142) and the authors' code, without the two outputs
    that never act. Differences: weight decay is that of ``LearnedOptimizer``, embeddings and
    read-outs move as other matrices do.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        hidden_layers: int = 2,
        hidden_size: int = 8,
        lr: float = 1e-3,
        vector_mult: float = 20.0,
        vectors: Callable[[], Rule] | None = Adam,
        orthogonal: bool = True,
        schedule: Schedule = constant,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_layers=hidden_layers, hidden_size=hidden_size)
        check_positive(vector_mult=vector_mult)

        self.log_lr = log_parameter("lr", lr)
        self.features = VeLOFeatures(
            rms_decay=0.95, rms_epsilon=1e-8, epsilon=1e-9, per_position=True, vector_means=False
        )
        self.vectors = None if vectors is None else vectors()
        widths = (self.features.num_channels, *[hidden_size] * hidden_layers, 1)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.vector_mult = vector_mult
        self.orthogonal = orthogonal
        self.update_scale = ORTHOGONAL_ENTRY if orthogonal else ENTRY
        self.schedule = schedule

    @override
    def init_state(self, params: Tree) -> Tree:
        moved_by_rule = {}
        for name, param in params.items():
            if self.vectors is not None and param.ndim < 2:
                moved_by_rule[name] = self.vectors.init_state(param)
        others = {name: param for name, param in params.items() if name not in moved_by_rule}
        return {
            "step": init_step(params),
            "features": self.features.init_state(others),
            "vectors": moved_by_rule,
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss
        step = state["step"] + 1
        lr = self.log_lr.exp() * self.schedule(state["step"].to(self.log_lr.dtype))
        vector_info = StepInfo(step, self.vector_mult * lr)

        clipped = clip_gradients(grads)
        by_function = {name: params[name] for name in state["features"]}
        inputs, accumulators = self.features(Reading(clipped, by_function, step), state["features"])
        outputs = self.function(inputs) if inputs else {}  # (*shape, 1)

        updates = {}
        rule_states = {}
        for name, param in params.items():
            if name in outputs:
                updates[name] = -lr * self._direction(outputs[name].squeeze(-1))
            elif self.vectors is not None:
                updates[name], rule_states[name] = self.vectors(
                    clipped[name], state["vectors"][name], param, vector_info
                )
        return updates, {"step": step, "features": accumulators, "vectors": rule_states}

    def _direction(self, output: Tensor) -> Tensor:
        """The output of the MLP as a step of root mean square 1 at every kernel position."""
        if output.ndim < 2:
            return output * torch.rsqrt(output.square().mean() + 1e-9)

        matrices = output.flatten(2) if output.ndim > 2 else output.unsqueeze(2)
        matrices = matrices.movedim(2, 0)  # (positions, out, in)
        if self.orthogonal:
            matrices = torch.func.vmap(orthogonalise)(matrices)
        mean_square = matrices.square().mean((1, 2), keepdim=True)
        unit = matrices * torch.rsqrt(mean_square + 1e-9)
        return unit.movedim(0, 2).reshape(output.shape)

"""Celo2: a per-parameter MLP whose output only points the way.

Every matrix moves by a step of the same size.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.adafactor_features import AdafactorFeatures
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_positive,
    init_step,
)
from learned_opt.optimizers.features import Features, Reading
from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, StepInfo, log_parameter
from learned_opt.optimizers.linear_algebra import orthogonalise
from learned_opt.optimizers.schedule import Schedule, constant
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise
from learned_opt.unf.stack import UNF


class Celo2(MetaOptimizer):
    """``update = -lr u / rms(u)``, u the MLP's output for a matrix, orthogonalised; else a rule.

    A matrix is a tensor of two axes or more. theta = (log lr, the MLP, the decays of the features,
    what the rule has). The step is as long at the end of a training as at its start, so the
    learning rate wants a schedule.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        features: constructor of the inputs; time is none of them.
        hidden_layers: hidden layers of the MLP.
        hidden_size: width of each.
        lr: root mean square of a step.
        vector_mult: learning rate of vectors and scalars, in units of lr.
        vectors: constructor of the rule for vectors and scalars.
        orthogonal: set the singular values of u to about 1; further axes count as one with the
            second.
        schedule: step -> factor of the learning rate.

    Raises:
        ValueError: a size or rate is not positive.

    Source: Moudgil et al. 2026 (arXiv 2602.19142) and the authors' code. Differences: means are
    taken over the whole tensor rather than its last two axes, weight decay is left out, the MLP has
    one output (the code's second one is multiplied by 0), embeddings and read-outs move as other
    matrices do.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        features: Callable[[], Features] = AdafactorFeatures,
        hidden_layers: int = 2,
        hidden_size: int = 8,
        lr: float = 1e-3,
        vector_mult: float = 20.0,
        vectors: Callable[[], Rule] = Adam,
        orthogonal: bool = True,
        schedule: Schedule = constant,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_layers=hidden_layers, hidden_size=hidden_size)
        check_positive(vector_mult=vector_mult)

        self.log_lr = log_parameter("lr", lr)
        self.features = features()
        self.vectors = vectors()
        widths = (self.features.num_channels, *[hidden_size] * hidden_layers, 1)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.vector_mult = vector_mult
        self.orthogonal = orthogonal
        self.schedule = schedule

    @override
    def init_state(self, params: Tree) -> Tree:
        vector_states = {}
        for name, param in params.items():
            vector_states[name] = {} if _is_matrix(param) else self.vectors.init_state(param)
        return {
            "step": init_step(params),
            "features": self.features.init_state(params),
            "vectors": vector_states,
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss
        step = state["step"] + 1
        lr = self.log_lr.exp() * self.schedule(state["step"].to(self.log_lr.dtype))
        vector_info = StepInfo(step, self.vector_mult * lr)

        # a spike must not fill the averages for good
        clipped = {name: grad.clamp(-1000, 1000) for name, grad in grads.items()}
        inputs, accumulators = self.features(Reading(clipped, params, step), state["features"])
        matrices = {name: inputs[name] for name, param in params.items() if _is_matrix(param)}
        outputs = self.function(matrices) if matrices else {}  # (*shape, 1)

        updates = {}
        vector_states = dict(state["vectors"])
        for name, param in params.items():
            if name in outputs:
                updates[name] = -lr * self._direction(outputs[name].squeeze(-1))
            else:
                updates[name], vector_states[name] = self.vectors(
                    clipped[name], vector_states[name], param, vector_info
                )

        return updates, {"step": step, "features": accumulators, "vectors": vector_states}

    def _direction(self, output: Tensor) -> Tensor:
        """The output of the MLP as a step of root mean square 1."""
        if self.orthogonal:
            output = orthogonalise(output.flatten(1)).reshape(output.shape)
        return output * torch.rsqrt(output.square().mean() + 1e-9)


def _is_matrix(param: Tensor) -> bool:
    return param.ndim > 1

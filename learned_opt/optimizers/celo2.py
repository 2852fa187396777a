"""Celo2: a per-parameter MLP whose output only points the way; every matrix moves by a step of the same size."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.optimizers.adafactor_features import AdafactorFeatures
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.features import Features
from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, StepInfo, log_parameter
from learned_opt.optimizers.hand.matrix import orthogonalise
from learned_opt.optimizers.schedule import Schedule, constant
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise
from learned_opt.unf.stack import UNF


class Celo2(MetaOptimizer):
    """``update = -lr u / rms(u)``, u the MLP's output for a tensor of two axes or more, orthogonalised; else a rule.

    theta = (log lr, the MLP, the decays of the features, what the rule has). The step is as long at the end of a
    training as at its start, so the learning rate wants a schedule.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        features: constructor of the inputs; time is none of them.
        hidden_layers: hidden layers of the MLP.
        hidden_size: width of each.
        lr: root mean square of a step.
        vector_mult: learning rate of vectors and scalars, in units of lr.
        vectors: constructor of the rule for vectors and scalars.
        orthogonal: set the singular values of u to about 1; further axes count as one with the second.
        schedule: step -> factor of the learning rate.

    Raises:
        ValueError: a size or rate is not positive.

    Source: Moudgil et al. 2026 (arXiv 2602.19142) and the authors' code. Differences: means are taken over the whole
    tensor rather than its last two axes, weight decay is left out, the MLP has one output (the code's second one is
    multiplied by 0), embeddings and read-outs move as other matrices do.
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
        for name, value in (("hidden_layers", hidden_layers), ("hidden_size", hidden_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if vector_mult <= 0:
            raise ValueError(f"vector_mult must be positive, got {vector_mult}.")
        self.log_lr = log_parameter("lr", lr)
        self.features, self.vectors = features(), vectors()
        widths = (self.features.num_channels, *[hidden_size] * hidden_layers, 1)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.vector_mult, self.orthogonal, self.schedule = vector_mult, orthogonal, schedule

    def init_state(self, params: Tree) -> Tree:
        """Fresh accumulators, the rule's state of tensors that are no matrix, and step."""
        return {
            "step": torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device),
            "features": self.features.init_state(params),
            "vectors": {
                n: {} if _is_matrix(p) else self.vectors.init_state(p) for n, p in params.items()
            },
        }

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del loss
        step, lr = (
            state["step"] + 1,
            self.log_lr.exp() * self.schedule(state["step"].to(self.log_lr.dtype)),
        )
        clipped = {name: grad.clamp(-1000, 1000) for name, grad in grads.items()}
        inputs, accumulators = self.features(clipped, state["features"], params)
        matrices = {name: inputs[name] for name, param in params.items() if _is_matrix(param)}
        outputs = self.function(matrices) if matrices else {}
        updates, after, info = {}, dict(state["vectors"]), StepInfo(step, self.vector_mult * lr)
        for name, param in params.items():
            if name in outputs:
                updates[name] = -lr * self._direction(outputs[name].squeeze(-1))
            else:
                updates[name], after[name] = self.vectors(clipped[name], after[name], param, info)
        return updates, {"step": step, "features": accumulators, "vectors": after}

    def _direction(self, output: Tensor) -> Tensor:
        if self.orthogonal:
            output = orthogonalise(output.flatten(1)).reshape(output.shape)
        return output * torch.rsqrt(output.square().mean() + 1e-9)

    def rebind(self, spec: PermutationSpec) -> Self:
        """Fits every spec."""
        return self._on(spec)


def _is_matrix(param: Tensor) -> bool:
    return param.ndim > 1

"""A learned optimizer of two numbers."""

import torch
from torch import Tensor, nn

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer, init_step
from learned_opt.symmetry.spec import PermutationSpec


class LearnedMomentum(MetaOptimizer):
    """SGD with momentum; step size and momentum are learned.

    Args:
        spec: permutation spec of the inner parameters, which every optimizer is built for.
        log_lr: natural logarithm of the step size before meta-training.
    """

    separable = True  # the update of a tensor needs no other tensor

    def __init__(self, spec: PermutationSpec, log_lr: float) -> None:
        super().__init__(spec)
        self.log_lr = nn.Parameter(torch.tensor(float(log_lr)))
        self.momentum_logit = nn.Parameter(torch.tensor(2.0))

    def init_state(self, params: Tree) -> Tree:
        """A counter and the momentum, which starts at zero."""
        return {"step": init_step(params), "momentum": tree.tree_map(torch.zeros_like, params)}

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One step; the updates are added to the parameters."""
        keep = torch.sigmoid(self.momentum_logit)
        step_size = self.log_lr.exp()

        momentum = {}
        updates = {}
        for name, grad in grads.items():
            momentum[name] = keep * state["momentum"][name] + (1 - keep) * grad
            updates[name] = -step_size * momentum[name]
        return updates, {"step": state["step"] + 1, "momentum": momentum}

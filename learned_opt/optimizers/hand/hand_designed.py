"""Hand-designed optimizers in the meta-optimizer contract: their hyper-parameters are theta.

They serve as baselines (theta set by a tuner, one learning rate per chain) and as the smallest learned optimizers
(theta meta-trained).
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.hand.base import Rule, StepInfo, log_parameter
from learned_opt.optimizers.schedule import Schedule, constant
from learned_opt.symmetry.spec import PermutationSpec


class HandDesigned(MetaOptimizer):
    """An update rule for every tensor, a learning rate on a schedule, and decoupled weight decay.

    theta = (log lr, log weight_decay, what the rule has). The schedule is not learned.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        rule: constructor of the rule.
        lr: learning rate.
        weight_decay: adds ``-lr weight_decay p`` to every update; 0 for none, and then it is not part of theta.
        schedule: step -> factor of the learning rate.

    Raises:
        ValueError: ``lr`` is not positive, or ``weight_decay`` is negative.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        rule: Callable[[], Rule],
        lr: float,
        weight_decay: float = 0.0,
        schedule: Schedule = constant,
    ) -> None:
        super().__init__(spec)
        self.log_lr = log_parameter("lr", lr)
        self.log_weight_decay = (
            log_parameter("weight_decay", weight_decay) if weight_decay else None
        )
        self.rule, self.schedule = rule(), schedule

    def init_state(self, params: Tree) -> Tree:
        """The rule's state of every tensor, and step."""
        step = torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)
        return {
            "step": step,
            "rule": {name: self.rule.init_state(param) for name, param in params.items()},
        }

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del loss
        info = StepInfo(
            state["step"] + 1,
            self.log_lr.exp() * self.schedule(state["step"].to(self.log_lr.dtype)),
        )
        updates, states = {}, {}
        for name, param in params.items():
            updates[name], states[name] = self.rule(grads[name], state["rule"][name], param, info)
            if self.log_weight_decay is not None:
                updates[name] = updates[name] - info.lr * self.log_weight_decay.exp() * param
        return updates, {"step": info.step, "rule": states}

    def rebind(self, spec: PermutationSpec) -> Self:
        """Fits every spec."""
        return self._on(spec)

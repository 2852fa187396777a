"""Hand-designed optimizers in the meta-optimizer contract: their hyper-parameters are theta.

They serve as baselines (theta set by a tuner, one learning rate per chain) and as the smallest
learned optimizers (theta meta-trained).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer, init_step
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
        weight_decay: adds ``-lr weight_decay p`` to every update; 0 for none, and then it is not
            part of theta.
        schedule: step -> factor of the learning rate.

    Raises:
        ValueError: ``lr`` is not positive, or ``weight_decay`` is negative.

    >>> import torch
    >>> from learned_opt.optimizers.hand.sgd import SGD
    >>> from learned_opt.symmetry import PermutationSpec
    >>> optimizer = HandDesigned(PermutationSpec({"w": ("row",)}), SGD, lr=0.5)
    >>> params, grads = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, -2.0])}
    >>> updates, state = optimizer(grads, optimizer.init_state(params), params, torch.tensor(0.0))
    >>> updates["w"].tolist(), state["step"].item()
    ([-0.5, 1.0], 1)
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
        self.log_weight_decay = None
        if weight_decay:
            self.log_weight_decay = log_parameter("weight_decay", weight_decay)
        self.rule = rule()
        self.update_scale = self.rule.update_scale
        self.schedule = schedule

    @override
    def init_state(self, params: Tree) -> Tree:
        states = {name: self.rule.init_state(param) for name, param in params.items()}
        return {"step": init_step(params), "rule": states}

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss
        factor = self.schedule(state["step"].to(self.log_lr.dtype))
        info = StepInfo(state["step"] + 1, self.log_lr.exp() * factor)

        updates = {}
        states = {}
        for name, param in params.items():
            if not param.numel():  # nothing moves, and norms and means of nothing have no value
                updates[name] = torch.zeros_like(param)
                states[name] = state["rule"][name]
                continue

            update, states[name] = self.rule(grads[name], state["rule"][name], param, info)
            if self.log_weight_decay is not None:  # decoupled: the rule's moments do not see it
                update = update - info.lr * self.log_weight_decay.exp() * param
            updates[name] = update

        return updates, {"step": info.step, "rule": states}

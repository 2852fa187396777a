"""Celo-Adam: the steps of Adam, their size scheduled as in Celo."""

from math import log

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_between_0_and_1,
    check_num_steps,
    check_positive,
)
from learned_opt.optimizers.celo import RATE, shared_rate
from learned_opt.optimizers.features import ema
from learned_opt.optimizers.relative_step import clip_gradients
from learned_opt.optimizers.scheduler import Scheduler
from learned_opt.optimizers.training_stage import NUM_STAGE_FEATURES, init_stage, read_stage
from learned_opt.symmetry.spec import PermutationSpec


class CeloAdam(MetaOptimizer):
    """``update = -rate lr m / (1e-8 + sqrt(v + 1e-10))``, m and v the bias-corrected moments.

    theta is the scheduler, which reads time and loss and writes the rate, one number for all
    tensors; it is 1 at the start of a meta-training.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        num_steps: inner steps of the training; None where whoever starts it will tell, which
            meta-training and evaluation do.
        lstm_size: hidden units of the scheduler.
        lr: learning rate at rate 1.
        beta1: decay of the first moment.
        beta2: decay of the second moment.

    Raises:
        ValueError: a value is out of its range.

    Source: Moudgil et al. 2025 (arXiv 2501.12670) and the authors' code, without the parts of its
    theta that never act. Difference: the read-out of the scheduler starts constant.
    """

    separable = True
    reads_num_steps = True
    needs_num_steps = True

    def __init__(
        self,
        spec: PermutationSpec,
        num_steps: int | None = None,
        lstm_size: int = 64,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
    ) -> None:
        super().__init__(spec)
        check_num_steps(num_steps)
        check_at_least_one(lstm_size=lstm_size)
        check_positive(lr=lr)
        check_between_0_and_1(beta1=beta1, beta2=beta2)
        self.num_steps = num_steps
        self.scheduler = Scheduler(NUM_STAGE_FEATURES, lstm_size, rate=-log(RATE))
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2

    @override
    def init_state(self, params: Tree) -> Tree:
        first = next(iter(params.values()))
        return {
            **init_stage(self, params),
            "lstm": self.scheduler.init_state(first),
            "first": {name: torch.zeros_like(param) for name, param in params.items()},
            "second": {name: torch.zeros_like(param) for name, param in params.items()},
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        stage, next_state = read_stage(state, loss)
        rate, next_state["lstm"] = shared_rate(self.scheduler, stage, state["lstm"], state["step"])

        count = next_state["step"].to(rate.dtype)
        left1 = 1 - self.beta1**count
        left2 = 1 - self.beta2**count
        first = {}
        second = {}
        updates = {}
        for name, grad in clip_gradients(grads).items():
            first[name] = ema(state["first"][name], grad, self.beta1)
            second[name] = ema(state["second"][name], grad * grad, self.beta2)
            root = torch.sqrt(second[name] / left2 + 1e-10)
            updates[name] = -self.lr * rate * (first[name] / left1) / (1e-8 + root)
        return updates, {**next_state, "first": first, "second": second}

"""Celo: a small MLP for every weight, and an LSTM that schedules the step size of all."""

from math import log

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_num_steps,
    check_positive,
)
from learned_opt.optimizers.features import Reading
from learned_opt.optimizers.relative_step import clip_gradients, relative_step
from learned_opt.optimizers.scheduler import Scheduler
from learned_opt.optimizers.training_stage import NUM_STAGE_FEATURES, init_stage, read_stage
from learned_opt.optimizers.update_scale import PARAMETER
from learned_opt.optimizers.velo_features import VeLOFeatures
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise
from learned_opt.unf.stack import UNF

RATE = 0.1  # of the exponential of the scheduler's read-out


class Celo(MetaOptimizer):
    """``update = -rate step_mult direction exp(exp_mult magnitude) rms(parameter)``.

    (direction, magnitude) = MLP(30 features of the weight); ``rate = 0.1 exp(read-out)`` of the
    scheduler, one number for all tensors, which reads time and loss. theta = (``function``, the
    MLP; ``scheduler``). At the start of a meta-training the rate is 1. A tensor that starts at 0,
    as biases do, hardly moves.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        num_steps: inner steps of the training; None where whoever starts it will tell, which
            meta-training and evaluation do.
        hidden_layers: hidden layers of the MLP.
        hidden_size: width of each.
        lstm_size: hidden units of the scheduler.
        step_mult: step size, in units of the root mean square of a tensor.
        exp_mult: how strongly the magnitude acts.

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Moudgil et al. 2025 (arXiv 2501.12670) and the authors' code, without the parts of its
    theta that never act. Differences: the read-out of the scheduler starts constant, the weights of
    the MLP normal, not truncated normal.
    """

    update_scale = PARAMETER
    separable = True
    reads_num_steps = True
    needs_num_steps = True

    def __init__(
        self,
        spec: PermutationSpec,
        num_steps: int | None = None,
        hidden_layers: int = 2,
        hidden_size: int = 4,
        lstm_size: int = 64,
        step_mult: float = 1e-3,
        exp_mult: float = 1e-3,
    ) -> None:
        super().__init__(spec)
        check_num_steps(num_steps)
        check_at_least_one(
            hidden_layers=hidden_layers, hidden_size=hidden_size, lstm_size=lstm_size
        )
        check_positive(step_mult=step_mult, exp_mult=exp_mult)

        self.num_steps = num_steps
        self.features = VeLOFeatures()
        widths = (self.features.num_channels, *[hidden_size] * hidden_layers, 2)
        self.function = UNF(spec, widths, Pointwise, Pointwise)  # fused on the CPU
        self.scheduler = Scheduler(NUM_STAGE_FEATURES, lstm_size, rate=-log(RATE))
        self.step_mult = step_mult
        self.exp_mult = exp_mult

    @override
    def init_state(self, params: Tree) -> Tree:
        first = next(iter(params.values()))
        return {
            **init_stage(self, params),
            "lstm": self.scheduler.init_state(first),
            "features": self.features.init_state(params),
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        stage, next_state = read_stage(state, loss)
        rate, next_state["lstm"] = shared_rate(self.scheduler, stage, state["lstm"], state["step"])

        reading = Reading(clip_gradients(grads), params, next_state["step"])
        inputs, next_state["features"] = self.features(reading, state["features"])
        outputs = self.function(inputs)  # (*shape, 2)

        updates = {}
        for name, param in params.items():
            step = relative_step(outputs[name], param, self.step_mult, self.exp_mult)
            updates[name] = rate * step
        return updates, next_state


def shared_rate(
    scheduler: Scheduler, inputs: Tensor, lstm: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """The step size of all tensors, a scalar, and the next state of the LSTM.

    In the authors' code every tensor has a row; all rows read the same and are the same.

    Args:
        scheduler: the LSTM.
        inputs: stage of the training, ``(Z,)``.
        lstm: its state before, ``(2, H)``.
        step: inner steps before this one, a scalar.
    """
    after = scheduler(inputs.unsqueeze(0), lstm.unsqueeze(1), step).squeeze(1)
    return RATE * torch.exp(scheduler.read_rate(after[0])), after

"""VeLO: an LSTM for every tensor that mixes its MLP from a bank and schedules its steps.

Legend: T tensors, Z = 30 inputs of the LSTM, H hidden units, B networks of the bank; F = 3 decays.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
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
from learned_opt.optimizers.scheduler import Scheduler, truncated_normal_
from learned_opt.optimizers.training_stage import NUM_STAGE_FEATURES, init_stage, read_stage
from learned_opt.optimizers.update_scale import PARAMETER
from learned_opt.optimizers.velo_features import DECAYS, VeLOFeatures
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.mixing import matmul

MAX_RANK = 5  # ranks that the one-hot code tells apart, from 0 on
NUM_TENSOR_INPUTS = 1 + MAX_RANK + 2 * len(DECAYS)  # of the LSTM, beside the stage of the training


class VeLO(MetaOptimizer):
    """``update = -rate step_mult direction exp(exp_mult magnitude) rms(parameter)``.

    (direction, magnitude) = MLP(30 features of the weight). Rate and MLP of a tensor are read from
    an LSTM, which sees statistics of its accumulators and the stage of the training, and a maximum
    over all tensors: the MLP is ``bank_mult mean_b k_b MLP_b`` over a bank, weight by weight.
    theta = (``scheduler``, ``controls`` that writes k, ``bank``).

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        num_steps: inner steps of the training; None where whoever starts it will tell, which
            meta-training and evaluation do.
        lstm_size: H.
        bank_size: B.
        hidden_layers: hidden layers of the MLPs.
        hidden_size: width of each.
        step_mult: step size, in units of the root mean square of a tensor.
        exp_mult: how strongly the magnitude acts.
        bank_mult: of the mean over the bank; 1 is advised for meta-training small ones.
        fixed_decays: the loss is averaged over ten steps at most, as in an early version.
        fixed_lstm: the LSTM starts afresh at every step, as in an early version.

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Metz et al. 2022 (arXiv 2211.09760), and the code of ``HyperV2``, without the parts of
    its theta that never act. Difference: the rate is 1 at the start of a meta-training, not random.
    """

    reads_spec = False
    update_scale = PARAMETER
    reads_num_steps = True
    needs_num_steps = True

    def __init__(
        self,
        spec: PermutationSpec,
        num_steps: int | None = None,
        lstm_size: int = 512,
        bank_size: int = 256,
        hidden_layers: int = 2,
        hidden_size: int = 4,
        step_mult: float = 1e-3,
        exp_mult: float = 1e-3,
        bank_mult: float = 100.0,
        fixed_decays: bool = False,
        fixed_lstm: bool = False,
    ) -> None:
        super().__init__(spec)
        check_num_steps(num_steps)
        check_at_least_one(lstm_size=lstm_size, bank_size=bank_size)
        check_at_least_one(hidden_layers=hidden_layers, hidden_size=hidden_size)
        check_positive(step_mult=step_mult, exp_mult=exp_mult, bank_mult=bank_mult)

        self.num_steps = num_steps
        self.features = VeLOFeatures()
        self.scheduler = Scheduler(NUM_STAGE_FEATURES + NUM_TENSOR_INPUTS, lstm_size, rate=1.0)
        self.controls = nn.Linear(lstm_size, bank_size)
        truncated_normal_(self.controls.weight, lstm_size)
        nn.init.zeros_(self.controls.bias)
        widths = (self.features.num_channels, *[hidden_size] * hidden_layers, 2)
        self.bank = Bank(bank_size, widths)
        self.step_mult = step_mult
        self.exp_mult = exp_mult
        self.bank_mult = bank_mult
        self.fixed_decays = fixed_decays
        self.fixed_lstm = fixed_lstm

    @override
    def init_state(self, params: Tree) -> Tree:
        return {
            **init_stage(self, params),
            "lstm": {name: self.scheduler.init_state(param) for name, param in params.items()},
            "features": self.features.init_state(params),
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        stage, next_state = read_stage(state, loss, self.fixed_decays)
        # one without entries has no statistics, and its row must not spoil the maximum over all
        names = [name for name, param in params.items() if param.numel()]
        rows = []
        for name in names:
            rows.append(_lstm_inputs(params[name], stage, **state["features"][name]))

        lstm = torch.stack([state["lstm"][name] for name in names], 1)  # (2, T, H)
        step = torch.zeros_like(state["step"]) if self.fixed_lstm else state["step"]
        after = self.scheduler(torch.stack(rows), lstm, step)
        rates = self.scheduler.read_rate(after[0])  # (T,)
        mixtures = self.bank_mult * self.controls(after[0])  # (T, B)
        advanced = dict(zip(names, after.unbind(1), strict=True))
        next_state["lstm"] = {**state["lstm"], **advanced}

        reading = Reading(clip_gradients(grads), params, next_state["step"])
        inputs, next_state["features"] = self.features(reading, state["features"])
        updates = {name: torch.zeros_like(param) for name, param in params.items()}
        for i, name in enumerate(names):
            output = self.bank(inputs[name], mixtures[i])  # (*shape, 2)
            full = relative_step(output, params[name], self.step_mult, self.exp_mult)
            updates[name] = rates[i] * full
        return updates, next_state


class Bank(nn.Module):
    """B networks of one shape, from whose weights those of one network are mixed.

    Args:
        size: B.
        widths: of the inputs, the hidden layers and the outputs.
    """

    def __init__(self, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            weight = torch.empty(size, fan_in, fan_out)
            self.weights.append(truncated_normal_(weight, fan_in))
            self.biases.append(torch.zeros(size, fan_out))

    def forward(self, inputs: Tensor, mixture: Tensor) -> Tensor:
        """The outputs of the mixed network.

        Args:
            inputs: ``(*shape, C)``.
            mixture: weights of the networks in the mean, ``(B,)``.
        """
        last = len(self.weights) - 1
        hidden = inputs
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = matmul(hidden, _mean(weight, mixture)) + _mean(bias, mixture)
            if i < last:
                hidden = torch.relu(hidden)
        return hidden


def _mean(bank: Tensor, mixture: Tensor) -> Tensor:
    """``mean_b k_b theta_b`` of ``(B, *shape)``."""
    mixed = mixture @ bank.flatten(1) / len(bank)
    return mixed.reshape(bank.shape[1:])


def _lstm_inputs(
    param: Tensor, stage: Tensor, momenta: Tensor, second: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """What the LSTM reads of a tensor, ``(Z,)``, from its accumulators before this step."""
    del rows, columns
    inverse = torch.rsqrt(param.square().mean().clamp_min(1e-9))
    scaled_momenta = (inverse * momenta).reshape(len(DECAYS), -1)  # (F, entries)
    scaled_second = (inverse * second).flatten()  # times the inverse, not its square
    means = scaled_momenta.mean(1, keepdim=True)  # (F, 1)

    momentum_variances = (scaled_momenta - means).square().mean(1)
    # around the means of the momenta: a slip in the authors' code, which trained weights know
    second_variances = (scaled_second - means).square().mean(1)
    second_mean = scaled_second.mean().unsqueeze(0)

    rank = sum(size > 1 for size in param.shape)
    one_hot = param.new_zeros(MAX_RANK)
    if rank < MAX_RANK:
        one_hot[rank] = 1.0
    parts = [stage, _log_size(second_mean), one_hot]
    return torch.cat([*parts, _log_size(momentum_variances), _log_size(second_variances)])


def _log_size(values: Tensor) -> Tensor:
    return torch.log(1e-8 + (10 * values).abs()).clamp(-5, 5) / 2

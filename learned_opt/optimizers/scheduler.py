"""The LSTM that schedules the steps of VeLO and Celo from the stage of the training.

Legend: T tensors (rows), Z inputs, H hidden units.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from learned_opt.optimizers.lstm import LSTMCell


class Scheduler(nn.Module):
    """One LSTM step for every row: what a row reads itself, and what all rows read, enter it.

    ``x = A z + max over rows of relu(B z)``, then the LSTM, then the read-out of the step size.
    The first state of the LSTM is a part of theta. At the start the read-out is constant.

    Args:
        num_inputs: Z.
        hidden_size: H.
        rate: what the read-out is at the start.

    Source: code of VeLO, Metz et al. 2022 (arXiv 2211.09760).
    """

    def __init__(self, num_inputs: int, hidden_size: int, rate: float) -> None:
        super().__init__()
        self.direct = _linear(num_inputs, hidden_size)
        self.pooled = _linear(num_inputs, hidden_size)
        self.cell = LSTMCell(hidden_size, hidden_size)
        self.start = nn.Parameter(torch.zeros(2, hidden_size))  # output and cell
        self.rate = nn.Linear(hidden_size, 1)
        with torch.no_grad():
            self.rate.weight.zero_()
            self.rate.bias.fill_(rate)

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.start.shape[1]

    def init_state(self, like: Tensor) -> Tensor:
        """The state of one row before its first step, ``(2, H)``.

        It is zero, since theta is not known here: ``forward`` puts the start of theta in its place.
        """
        return like.new_zeros(2, self.hidden_size)

    def forward(self, inputs: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """The next state.

        Args:
            inputs: ``(T, Z)``.
            state: output and cell of the step before, ``(2, T, H)``.
            step: inner steps before this one, a scalar.

        Returns:
            Tensor: output and cell, ``(2, T, H)``.
        """
        state = torch.where(step == 0, self.start.unsqueeze(1), state)
        pooled = torch.relu(self.pooled(inputs)).amax(0)  # (H,)
        return self.cell(self.direct(inputs) + pooled, state)

    def read_rate(self, output: Tensor) -> Tensor:
        """The read-out ``(*shape,)`` of LSTM outputs ``(*shape, H)``."""
        return self.rate(output).squeeze(-1)


def truncated_normal_(tensor: Tensor, fan_in: int) -> Tensor:
    """Fill with normal numbers of deviation ``1 / sqrt(fan_in)``, none beyond two deviations."""
    std = 1 / sqrt(fan_in)
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def _linear(num_inputs: int, num_outputs: int) -> nn.Linear:
    layer = nn.Linear(num_inputs, num_outputs)
    truncated_normal_(layer.weight, num_inputs)
    nn.init.zeros_(layer.bias)
    return layer

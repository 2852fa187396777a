"""How far a training is, for optimizers that know how long it will be: ramps of time and the loss.

The state is the loss buffer: moving averages of the loss with ten decays, and their minima so far.

Source: code of VeLO, Metz et al. 2022 (arXiv 2211.09760), which Celo shares.

Legend: J = 10 decays.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_DECAYS = 10
SHORTEST = 10.0  # inner steps that the fastest decay averages over
TIMES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)  # centres of the ramps, shares of num_steps
NUM_TIMES = len(TIMES)
NUM_LOSSES = NUM_DECAYS - 1
NUM_STAGE_FEATURES = NUM_TIMES + NUM_LOSSES
HIGHEST = 999_999_999_999.0  # that a minimum starts from
UNSURE = 2  # updates of which the loss features show nothing


class Stage(NamedTuple):
    """What is known of a training at one inner step.

    Args:
        features: time (9), then loss (9): ``(18,)``.
        losses: the loss buffer behind the step, ``(2, J)``.
    """

    features: Tensor
    losses: Tensor


def init_losses(like: Tensor) -> Tensor:
    """The loss buffer of a fresh training, ``(2, J)``: averages and their minima."""
    means = like.new_zeros(NUM_DECAYS)
    minima = like.new_full((NUM_DECAYS,), HIGHEST)
    return torch.stack([means, minima])


def read_stage(
    losses: Tensor, loss: Tensor, step: Tensor, num_steps: Tensor, fixed_decays: bool = False
) -> Stage:
    """The stage at an inner step.

    Args:
        losses: the loss buffer before it, ``(2, J)``.
        loss: training loss, a scalar.
        step: inner steps before this one, a scalar.
        num_steps: inner steps of the whole training, a scalar.
        fixed_decays: all decays are those of ten steps, whatever the length of the training.
    """
    loss = loss.to(losses)
    count = step.to(losses)  # updates of the buffer so far
    length = num_steps.to(losses)
    longest = torch.full_like(length, SHORTEST) if fixed_decays else length
    means, minima = losses.unbind(0)

    # H_j steps, from 10 to num_steps by equal factors
    shares = torch.linspace(0, 1, NUM_DECAYS, dtype=losses.dtype, device=losses.device)
    decays = torch.exp(-1 / (SHORTEST * (longest / SHORTEST) ** shares))
    correction = 1 - decays ** (count + 1)

    # a spike must not fill the averages for good
    cap = torch.where(count == 0, loss, (means / correction).amax())
    clipped = torch.minimum(2 * cap.abs(), loss)
    means = decays * means + (1 - decays) * clipped
    corrected = means / correction
    minima = torch.minimum(minima, corrected)

    relative = (corrected - minima)[:-1] / (corrected[1:] - minima[:-1]).clamp_min(1e-8)
    is_unsure = count + 1 <= UNSURE
    loss_features = torch.where(is_unsure, 0.0, (relative - 1).clamp(-1, 1))

    times = torch.tensor(TIMES, dtype=losses.dtype, device=losses.device)
    time_features = torch.tanh(10 * (count / length - times))
    features = torch.cat([time_features, loss_features])
    return Stage(features, torch.stack([means, minima]))

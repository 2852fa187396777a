"""How far a training is, for optimizers that know how long it will be: ramps of time and the loss.

The state is the loss buffer: moving averages of the loss with ten decays, and their minima so far.

Source: code of VeLO, Metz et al. 2022 (arXiv 2211.09760), which Celo shares.

Legend: J = 10 decays.
"""

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer, init_num_steps, init_step

NUM_DECAYS = 10
SHORTEST = 10.0  # inner steps that the fastest decay averages over
TIMES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)  # centres of the ramps, shares of num_steps
NUM_TIMES = len(TIMES)
NUM_LOSSES = NUM_DECAYS - 1
NUM_STAGE_FEATURES = NUM_TIMES + NUM_LOSSES
HIGHEST = 999_999_999_999.0  # that a minimum starts from
UNSURE = 2  # updates of which the loss features show nothing


def init_stage(optimizer: MetaOptimizer, params: Tree) -> Tree:
    """The part of a fresh opt_state that belongs to all tensors at once.

    Args:
        optimizer: one that must know how long the training will be.
        params: inner parameters.

    Raises:
        ValueError: nobody has told it.
    """
    step = init_step(params)
    like = next(iter(params.values()))
    means = like.new_zeros(NUM_DECAYS)
    minima = like.new_full((NUM_DECAYS,), HIGHEST)
    return {
        "step": step,
        "num_steps": init_num_steps(optimizer, step),
        "losses": torch.stack([means, minima]),
    }


def read_stage(state: Tree, loss: Tensor, fixed_decays: bool = False) -> tuple[Tensor, Tree]:
    """The stage at an inner step.

    Args:
        state: opt_state, of which ``step``, ``num_steps`` and ``losses`` are read.
        loss: training loss, a scalar.
        fixed_decays: all decays are those of ten steps, whatever the length of the training.

    Returns:
        tuple[Tensor, Tree]: features, time (9) and then loss (9), ``(18,)``; and that part of the
        next opt_state.
    """
    losses = state["losses"]  # (2, J)
    count = state["step"].to(losses)
    length = state["num_steps"].to(losses)
    longest = torch.full_like(length, SHORTEST) if fixed_decays else length
    loss_features, losses_after = _read_losses(losses, loss.to(losses), count, longest)

    times = torch.tensor(TIMES, dtype=losses.dtype, device=losses.device)
    time_features = torch.tanh(10 * (count / length - times))
    next_state = {
        "step": state["step"] + 1,
        "num_steps": state["num_steps"],
        "losses": losses_after,
    }
    return torch.cat([time_features, loss_features]), next_state


def _read_losses(
    losses: Tensor, loss: Tensor, count: Tensor, longest: Tensor
) -> tuple[Tensor, Tensor]:
    """Features of the loss ``(9,)``, and the next buffer.

    Args:
        losses: averages and minima before, ``(2, J)``.
        loss: the next one, a scalar.
        count: losses seen before it, a scalar.
        longest: steps that the slowest decay averages over, a scalar.
    """
    means, minima = losses.unbind(0)
    # from SHORTEST to the longest by equal factors
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
    features = torch.where(count + 1 <= UNSURE, 0.0, (relative - 1).clamp(-1, 1))
    return features, torch.stack([means, minima])

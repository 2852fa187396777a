"""Whether a meta-optimizer can take a step in place."""

import torch
from torch import Tensor

from learned_opt.optimizers.base import MetaOptimizer


def check_fused(meta_optimizer: MetaOptimizer, like: Tensor, compile: bool) -> None:
    """Take a step on a parameter of one entry.

    Args:
        meta_optimizer: goes to the dtype and device of ``like``.
        like: a parameter.
        compile: whether steps are to be compiled.

    Raises:
        ValueError: there is no kernel, or steps are to be compiled.
    """
    meta_optimizer.to(like)
    trial = {"trial": torch.zeros(1, dtype=like.dtype, device=like.device)}
    state = meta_optimizer.init_state(trial)
    rates = {"trial": (1.0, 1.0)}
    if compile or not meta_optimizer.step_(trial, state, trial, rates):
        raise ValueError(
            "fused needs a meta-optimizer that has such a kernel (pointwise layers), parameters on "
            "the CPU, a C++ compiler, and no compile; "
            f"got {type(meta_optimizer).__name__} on {like.device}, compile={compile}."
        )

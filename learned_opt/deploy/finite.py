"""Steps whose gradients are not all finite."""

import logging
from collections.abc import Sequence

import torch
from torch.distributed.tensor import DTensor

from learned_opt.deploy.sharded import agreed
from learned_opt.deploy.weight_space import Slot

MODES = ("skip", "raise")

log = logging.getLogger(__name__)


class FiniteGate:
    """Lets no step pass that has a gradient with a number that is not finite.

    One such number would reach every weight, which an equivariant optimizer tells from others by
    means over all.

    Args:
        mode: what happens then, ``skip`` the step or ``raise``.

    Attributes:
        skipped: steps that were skipped.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"nonfinite must be one of {', '.join(MODES)}, got {mode!r}.")
        self.mode = mode
        self.skipped = 0

    def passes(self, slots: Sequence[Slot]) -> bool:
        """Whether these parameters may take a step; warns of the first that may not.

        Raises:
            ValueError: a gradient is not finite, and the mode is ``raise``.
        """
        name = first_nonfinite(slots)
        # a process that sees no shard of it skips the step, too
        if not agreed(name is not None, slots):
            return True

        sentence = f"the gradient of parameter {name or 'of another process'} is not finite"
        if self.mode == "raise":
            raise ValueError(f"{sentence}; nothing was changed.")
        if not self.skipped:
            log.warning("%s: this step is skipped, and so are others like it.", sentence)
        self.skipped += 1
        return False


def first_nonfinite(slots: Sequence[Slot]) -> str | None:
    """Name of the first parameter whose gradient holds a number that is not finite."""
    live = []
    for slot in slots:
        grad = slot.param.grad
        if isinstance(grad, DTensor):
            grad = grad.to_local()
        if grad is not None and not grad.is_sparse and grad.numel():
            live.append((slot.name, grad))
    if not live:
        return None

    # both ends of a tensor in one pass; NaN is at both
    ends = torch.stack([end for _, grad in live for end in grad.aminmax()])
    if bool(ends.isfinite().all()):  # waits for the device once
        return None
    return next(name for name, grad in live if not bool(grad.isfinite().all()))

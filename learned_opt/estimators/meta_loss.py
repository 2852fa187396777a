"""What one unroll counts as.

Legend: K unroll length, M chains.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

REDUCTIONS = ("mean", "final", "min")
SPLITS = ("train", "valid")
NORMALISERS = ("none", "initial", "log")
LEAST_RATIO = 1e-6  # of a loss to the initial one, below which ``log`` counts no further


@dataclass(frozen=True)
class MetaLoss:
    """The losses of an unroll, normalised, clipped, and reduced to one number for each chain.

    The initial loss of a chain is that of its first step since the restart. Theta has had no part in it, so that to
    divide by it weighs tasks and adds no bias. ``initial`` and ``log`` make tasks comparable whose losses differ in
    scale; they need positive losses.

    Args:
        reduction: ``mean``, ``final`` or ``min`` over the steps.
        split: the batches on which the losses are taken, ``train`` or ``valid``. The losses of ``train`` are those
            whose gradients train the inner network; ``valid`` costs one more forward pass a step.
        normaliser: ``none``; ``initial``, the loss over the initial one; ``log``, the logarithm of that ratio.
        clip: normalised losses above it count as it, step by step, in nats or as a ratio according to ``normaliser``;
            None for no limit. A clipped step has no gradient of its own. Losses that are not finite are not clipped:
            their chain is left out and restarted.

    Raises:
        ValueError: an unknown choice.
    """

    reduction: str = "mean"
    split: str = "train"
    normaliser: str = "none"
    clip: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("reduction", REDUCTIONS),
            ("split", SPLITS),
            ("normaliser", NORMALISERS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"meta_loss.{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )

    def __call__(self, losses: Tensor, initial: Tensor) -> Tensor:
        """The meta-loss of every chain.

        Args:
            losses: ``(K, M)``.
            initial: losses of the chains' first steps, ``(M,)``.

        Returns:
            Tensor: ``(M,)``.
        """
        values = self._normalise(losses, initial)
        values = values if self.clip is None else values.clamp(max=self.clip)
        if self.reduction == "mean":
            return values.mean(0)
        return values[-1] if self.reduction == "final" else values.amin(0)

    def _normalise(self, losses: Tensor, initial: Tensor) -> Tensor:
        if self.normaliser == "none":
            return losses
        ratio = losses / initial.where(initial > 0, torch.nan)
        return ratio if self.normaliser == "initial" else ratio.clamp(min=LEAST_RATIO).log()

"""The one number that an unroll counts as.

Legend: K inner steps of an unroll, M chains.
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

    The initial loss of a chain is that of its first inner step since the restart. Theta has had
    no part in it, so that to divide by it weighs tasks and adds no bias. ``initial`` and ``log``
    make tasks comparable whose losses differ in scale; they need positive losses.

    Args:
        reduction: ``mean``, ``final`` or ``min`` over the inner steps.
        split: the batches on which the losses are taken, ``train`` or ``valid``. The losses of
            ``train`` are those whose gradients train the inner network; ``valid`` costs one more
            forward pass an inner step.
        normaliser: ``none``; ``initial``, the loss over the initial one; ``log``, the logarithm
            of that ratio.
        clip: normalised losses above it count as it, inner step by inner step, in nats or as a
            ratio according to ``normaliser``; None for no limit. A clipped step has no gradient
            of its own. Losses that are not finite are not clipped: their chain is left out and
            restarted.

    Raises:
        ValueError: an unknown choice.

    >>> losses = torch.tensor([[4.0], [2.0], [3.0]])
    >>> MetaLoss("final", normaliser="initial")(losses, losses[0])
    tensor([0.7500])
    """

    reduction: str = "mean"
    split: str = "train"
    normaliser: str = "none"
    clip: float | None = None

    def __post_init__(self) -> None:
        choices = {"reduction": REDUCTIONS, "split": SPLITS, "normaliser": NORMALISERS}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")

    def __call__(self, losses: Tensor, initial: Tensor) -> Tensor:
        """The meta-loss of every chain.

        Args:
            losses: ``(K, M)``.
            initial: losses of the chains' first inner steps, ``(M,)``.

        Returns:
            Tensor: ``(M,)``.
        """
        values = self._normalise(losses, initial)  # (K, M)
        if self.clip is not None:
            values = values.clamp(max=self.clip)

        if self.reduction == "mean":
            return values.mean(0)
        return values[-1] if self.reduction == "final" else values.amin(0)

    def _normalise(self, losses: Tensor, initial: Tensor) -> Tensor:
        if self.normaliser == "none":
            return losses

        ratio = losses / initial.where(initial > 0, torch.nan)
        return ratio if self.normaliser == "initial" else ratio.clamp(min=LEAST_RATIO).log()

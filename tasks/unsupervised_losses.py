"""Losses of images without classes, and the figures that they are made of.

Legend: B batch, Z latents, E embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Decoded(NamedTuple):
    """What a variational autoencoder returns.

    Args:
        logits: of the pixels, shaped as the images.
        mean: of the latents, ``(B, Z)``.
        log_variance: of the latents, ``(B, Z)``.
    """

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


def reconstruction(outputs: Decoded, images: Tensor) -> Tensor:
    """Cross-entropy of the pixels, as probabilities of white, in nats per pixel."""
    return functional.binary_cross_entropy_with_logits(outputs.logits, images)


def kl_divergence(outputs: Decoded, images: Tensor) -> Tensor:
    """Of the latents' normal distribution from a standard one, in nats per pixel.

    >>> code = torch.zeros(2, 3)
    >>> kl_divergence(Decoded(torch.zeros(2, 1, 4, 4), code, code), torch.zeros(2, 1, 4, 4))
    tensor(0.)
    """
    mean, log_variance = outputs.mean, outputs.log_variance
    terms = mean.square() + log_variance.exp() - 1 - log_variance  # (B, Z)
    return 0.5 * terms.sum() / images.numel()


def negative_elbo(outputs: Decoded, images: Tensor) -> Tensor:
    """Bound on the negative log-likelihood, of one draw of the latents, in nats per pixel.

    Source: Kingma & Welling 2014 (arXiv 1312.6114), equation 10.
    """
    return reconstruction(outputs, images) + kl_divergence(outputs, images)


class InfoNCE:
    """Cross-entropy of finding the other view of an image among those of a whole batch.

    The logits are cosines over a temperature; the mean of both directions, in nats.

    Args:
        temperature: of the softmax.

    Raises:
        ValueError: the temperature is not positive.

    Source: van den Oord et al. 2018 (arXiv 1807.03748), equation 4, with the cosine of Chen et
    al. 2020 (arXiv 2002.05709).

    >>> same = torch.ones(4, 2)
    >>> InfoNCE()((same, same), torch.zeros(4, 1, 8, 8))  # log 4
    tensor(1.3863)
    """

    def __init__(self, temperature: float = 0.2) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.temperature = temperature

    def __call__(self, outputs: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
        """The loss of two views ``(B, E)`` each."""
        logits = _cosines(*outputs) / self.temperature
        return 0.5 * (_cross_entropy(logits) + _cross_entropy(logits.T))


def pair_accuracy(outputs: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
    """Share of first views to which, of all second views of a batch, that of their image is next.

    >>> views = torch.eye(3)
    >>> pair_accuracy((views, views), torch.zeros(3, 1, 8, 8))
    tensor(1.)
    """
    cosines = _cosines(*outputs)
    pairs = torch.arange(len(cosines), device=cosines.device)
    return (cosines.argmax(1) == pairs).float().mean()


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Of each first view with each second one, ``(B, B)``."""
    return functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T


def _cross_entropy(logits: Tensor) -> Tensor:
    """Of the diagonal."""
    return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))

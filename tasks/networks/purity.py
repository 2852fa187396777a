"""A network author's first mistakes, each answered by one sentence."""

from typing import Any

from torch import nn

from tasks.networks.base import Network

NEEDS = "it must be pure, the same for the same arguments"


def check_network(network: Any) -> None:
    """Refuse a network that inner training cannot run, and say which of its layers is why.

    Args:
        network: what a task was given as its inner network.

    Raises:
        ValueError: it is no ``Network``, draws at random, or keeps statistics of its batches.
    """
    kind = type(network).__name__
    if not isinstance(network, Network):
        raise ValueError(
            f"network must be a tasks.networks.base.Network, got {kind}; derive it from Network "
            "in the place of nn.Module."
        )

    for name, layer in network.named_modules():
        where = f"layer {name!r} ({type(layer).__name__}) of network {kind}"
        if _dropout_rate(layer) > 0:
            raise ValueError(f"{where} drops at random, but {NEEDS}; leave it out, or set it to 0.")
        if _keeps_statistics(layer):
            raise ValueError(
                f"{where} keeps statistics of its batches, but {NEEDS}; use GroupNorm or "
                "LayerNorm, or track_running_stats=False."
            )


def _dropout_rate(layer: nn.Module) -> float:
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p
    rate = getattr(layer, "dropout", 0.0)  # of recurrent layers and attentions
    return rate if isinstance(rate, int | float) else 0.0


def _keeps_statistics(layer: nn.Module) -> bool:
    return bool(getattr(layer, "track_running_stats", False))

"""Networks whose parameters start as their class means them to, from torch's global generator."""

import torch
from torch import nn

from tasks.networks.base import Network


def initialised(network: nn.Module) -> nn.Module:
    """Draw the parameters of a network by its ``init``; of any other module they stay.

    A task of any module takes what a constructor leaves, but some layers of networks here hold
    nothing before ``init``.

    Args:
        network: changed in place.

    Returns:
        nn.Module: the network.
    """
    if not isinstance(network, Network):
        return network

    seed = int(torch.randint(2**62, ()))
    params = network.init(torch.Generator().manual_seed(seed))
    network.load_state_dict(params, strict=False)
    return network

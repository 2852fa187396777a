"""Networks whose parameters start as their class means them to, from torch's global generator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tasks.networks.base import Network


def initialised(network: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """Construct a network and draw its parameters by its ``init``, where it has one.

    A task of any module takes what a constructor leaves, but some layers of networks here hold
    nothing before ``init``.

    Args:
        network: constructor.
        arguments: of the constructor.

    Returns:
        nn.Module: the network.

    Raises:
        ValueError: the constructor wants other arguments.
    """
    try:
        module = network(*arguments)
    except TypeError as error:
        listed = " and ".join(str(argument) for argument in arguments)
        raise ValueError(f"network must be constructed from {listed}, but: {error}.") from error

    if isinstance(module, Network):
        seed = int(torch.randint(2**62, ()))
        params = module.init(torch.Generator().manual_seed(seed))
        module.load_state_dict(params, strict=False)
    return module

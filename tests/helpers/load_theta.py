"""``python -m tests.helpers.load_theta FILE``: what ``from_pretrained`` makes of a theta file.

Prints a JSON line: the settings of the optimizer, and the digest of each meta-parameter.
"""

import hashlib
import json
import sys

import torch
from torch import Tensor, nn

from learned_opt import LearnedOptimizer

REFUSALS = (ValueError, ConnectionError)  # what from_pretrained says that it raises
SETTINGS = ("alpha", "beta", "gamma", "num_layers", "channels", "normalisation", "fixed_axes")


class Network(nn.Module):
    """The MLP of ``+task=mlp``, with the names of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 10)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](torch.relu(self.layers[0](x)))


def digest(tensor: Tensor) -> str:
    """Of the shape and the numbers, whatever their type."""
    numbers = tensor.detach().double().contiguous().numpy().tobytes()
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + numbers).hexdigest()


def main() -> None:
    """Load the file that the command line names; a refusal is exit code 2."""
    try:
        optimizer = LearnedOptimizer.from_pretrained(sys.argv[1], Network(), (torch.ones(2, 64),))
    except REFUSALS as error:
        print(f"learned_opt: {error}", file=sys.stderr)
        sys.exit(2)

    meta_optimizer = optimizer.meta_optimizer
    theta = {name: digest(leaf) for name, leaf in meta_optimizer.named_parameters()}
    settings = {}
    for name in SETTINGS:
        if hasattr(meta_optimizer, name):
            settings[name] = getattr(meta_optimizer, name)
    print(json.dumps({"theta": theta, "settings": settings}))

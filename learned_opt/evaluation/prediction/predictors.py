"""Predictors of a network's success from its weights alone: ``(M networks) -> (M,)`` scores, in logits."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import vmap

from learned_opt.core.tree import Tree
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import UNFLinear
from learned_opt.unf.stack import UNF, InvariantPool

NUM_STATISTICS = 7


class InvariantFunctional(nn.Module):
    """Equivariant layers, mean over every tensor, a dense network: invariant to the symmetries of the spec.

    Args:
        spec: permutation spec of the networks.
        layer: constructor of the equivariant layers.
        channels: width of the equivariant layers.
        num_layers: equivariant layers.
        hidden_size: width of the dense network's hidden layer.
        fixed_axes: ``permute``, ``encode`` or ``fold``, see ``unf.fixed``.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 4.1, with the layer counts of the authors' code.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        layer: Callable[..., nn.Module] = UNFLinear,
        channels: int = 16,
        num_layers: int = 2,
        hidden_size: int = 512,
        fixed_axes: str = "permute",
    ) -> None:
        super().__init__()
        self.spec = spec
        self.equivariant = UNF(
            spec, (1, *[channels] * num_layers), layer, layer, fixed_axes=fixed_axes
        )
        self.pool = InvariantPool()
        self.dense = dense(len(spec.axes) * channels, [hidden_size])

    def forward(self, params: Tree) -> Tensor:
        """Leaves ``(M, *shape)`` -> ``(M,)``."""
        return self.dense(vmap(self._pooled)(params)).squeeze(-1)

    def _pooled(self, params: Tree) -> Tensor:
        inputs = self.spec.view({name: value.unsqueeze(-1) for name, value in params.items()})
        return self.pool({name: value.relu() for name, value in self.equivariant(inputs).items()})


class StatNN(nn.Module):
    """Seven statistics of every tensor (mean, variance, minimum, quartiles, maximum), a dense network.

    Args:
        spec: permutation spec of the networks; only the names of the tensors matter.
        hidden_size: width of the hidden layers.
        num_layers: hidden layers.

    Source: Unterthiner et al. 2020 (arXiv 2002.11448), in the sizes of Zhou et al. 2024.
    """

    def __init__(self, spec: PermutationSpec, hidden_size: int = 600, num_layers: int = 3) -> None:
        super().__init__()
        self.names = list(spec.axes)
        num_features = NUM_STATISTICS * len(spec.axes)
        self.norm = nn.BatchNorm1d(num_features, affine=False)  # statistics differ in scale
        self.dense = dense(num_features, [hidden_size] * num_layers)

    def forward(self, params: Tree) -> Tensor:
        """Leaves ``(M, *shape)`` -> ``(M,)``."""
        features = torch.cat([statistics(params[name].flatten(1)) for name in self.names], -1)
        return self.dense(self.norm(features)).squeeze(-1)


def statistics(entries: Tensor) -> Tensor:
    """``(M, n) -> (M, 7)``: mean, variance, and the quantiles 0, 1/4, 1/2, 3/4, 1."""
    levels = torch.linspace(0, 1, NUM_STATISTICS - 2, dtype=entries.dtype, device=entries.device)
    variance, mean = torch.var_mean(entries, -1, correction=0)
    return torch.cat([mean[:, None], variance[:, None], entries.quantile(levels, -1).T], -1)


def dense(in_features: int, hidden_sizes: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, one output."""
    layers: list[nn.Module] = []
    for before, after in pairwise([in_features, *hidden_sizes]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear([in_features, *hidden_sizes][-1], 1))

"""Predictors of a network's success from its weights, in logits.

Legend: M networks, C channels; inputs are ``name -> (M, *shape, in_channels)``.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.stack import UNF, InvariantPool

NUM_STATISTICS = 7


class InvariantFunctional(nn.Module):
    """Equivariant layers, mean over every tensor, a dense network.

    It is invariant to the symmetries of the spec.

    Args:
        spec: permutation spec of the networks.
        layer: constructor ``(spec, in_channels, out_channels)`` of the equivariant layers.
        in_channels: numbers that are known of every weight, its value among them.
        channels: width of the equivariant layers.
        num_layers: equivariant layers.
        hidden_size: width of the dense network's hidden layer.
        fixed_axes: ``permute``, ``encode`` or ``fold``, see ``unf.fixed``.
        with_statistics: the dense network also reads the statistics that ``StatNN`` reads.
        dropout: share of the numbers that the dense network reads which are left out at random in
            training, and of those of its hidden layer.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 4.1, with the layer counts of the
    authors' code.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        layer: Callable[..., nn.Module],
        in_channels: int = 1,
        channels: int = 16,
        num_layers: int = 2,
        hidden_size: int = 512,
        fixed_axes: str = "permute",
        with_statistics: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        widths = (in_channels, *[channels] * num_layers)
        self.equivariant = UNF(spec, widths, layer, layer, fixed_axes=fixed_axes)
        self.pool = InvariantPool()
        self.statistics = Statistics(spec, in_channels) if with_statistics else None
        num_features = len(spec.axes) * channels
        if self.statistics is not None:
            num_features += self.statistics.num_features
        self.dense = dense(num_features, [hidden_size], dropout)

    @override
    def forward(self, params: Tree) -> Tensor:
        features = vmap(self._pooled)(params)
        if self.statistics is not None:
            features = torch.cat([features, self.statistics(params)], -1)
        return self.dense(features).squeeze(-1)  # (M,)

    def _pooled(self, params: Tree) -> Tensor:
        """Invariant features of one network, from all its tensors."""
        outputs = self.equivariant(self.spec.view(params))  # leaves (*shape, C)
        return self.pool({name: value.relu() for name, value in outputs.items()})


class Statistics(nn.Module):
    """Seven statistics of every tensor (mean, variance, minimum, quartiles, maximum).

    They are shifted and scaled to those of the training batches: ``(M, num_features)``.

    Args:
        spec: permutation spec of the networks; only the names of the tensors matter.
        in_channels: of the inputs; each has its statistics.
    """

    def __init__(self, spec: PermutationSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.names = list(spec.parameters)
        self.num_features = NUM_STATISTICS * in_channels * len(self.names)
        self.norm = nn.BatchNorm1d(self.num_features, affine=False)  # statistics differ in scale

    @override
    def forward(self, params: Tree) -> Tensor:
        features = []
        for name in self.names:
            for channel in params[name].unbind(-1):  # (M, *shape)
                features.append(statistics(channel.flatten(1)))
        return self.norm(torch.cat(features, -1))


class StatNN(nn.Module):
    """A dense network that reads ``Statistics``.

    Args:
        spec: permutation spec of the networks; only the names of the tensors matter.
        in_channels: of the inputs.
        hidden_size: width of the hidden layers.
        num_layers: hidden layers.
        dropout: as of ``InvariantFunctional``.

    Source: Unterthiner et al. 2020 (arXiv 2002.11448), in the sizes of Zhou et al. 2024.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        in_channels: int = 1,
        hidden_size: int = 600,
        num_layers: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.statistics = Statistics(spec, in_channels)
        self.dense = dense(self.statistics.num_features, [hidden_size] * num_layers, dropout)

    @override
    def forward(self, params: Tree) -> Tensor:
        return self.dense(self.statistics(params)).squeeze(-1)  # (M,)


def statistics(entries: Tensor) -> Tensor:
    """Mean, variance, and the quantiles 0, 1/4, 1/2, 3/4, 1: ``(M, n) -> (M, 7)``.

    >>> statistics(torch.arange(5.0)[None])
    tensor([[2., 2., 0., 1., 2., 3., 4.]])
    """
    num_quantiles = NUM_STATISTICS - 2
    levels = torch.linspace(0, 1, num_quantiles, dtype=entries.dtype, device=entries.device)
    variance, mean = torch.var_mean(entries, -1, correction=0)  # (M,) each
    return torch.cat([mean[:, None], variance[:, None], entries.quantile(levels, -1).T], -1)


def dense(in_features: int, hidden_sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU between them, one output.

    Raises:
        ValueError: dropout outside of [0, 1).
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}.")

    layers: list[nn.Module] = []
    width = in_features
    for hidden_size in hidden_sizes:
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(width, hidden_size), nn.ReLU()]
        width = hidden_size
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, 1))

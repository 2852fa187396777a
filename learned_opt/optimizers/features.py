"""Input features of learned optimizers.

Source: Metz et al. 2020 (arXiv 2009.11243) and Zhou et al. 2024 (arXiv 2402.05232), appendix;
details that the text leaves open follow the authors' code: momenta are exponential moving averages,
time features are tanh ramps.

Legend: C channels; ``*shape`` the shape of a parameter.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map

MOMENTUM_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # inner steps
NUM_TENSOR_FEATURES = 2 + len(MOMENTUM_DECAYS)  # parameter, gradient, momenta
NUM_FEATURES = NUM_TENSOR_FEATURES + len(TIME_SCALES)
NORMALISATIONS = ("joint", "channel")


def ema(average: Tensor, value: Tensor, decay: Tensor | float) -> Tensor:
    """Exponential moving average: ``decay * average + (1 - decay) * value``.

    >>> ema(torch.tensor(1.0), torch.tensor(0.0), 0.75).item()
    0.75
    """
    return decay * average + (1 - decay) * value


def init_momenta(params: Tree) -> Tree:
    """Zero momenta ``(6, *shape)`` for every parameter; one momentum's entries lie side by side."""
    return tree_map(lambda p: p.new_zeros(len(MOMENTUM_DECAYS), *p.shape), params)


def update_momenta(momenta: Tree, grads: Tree) -> Tree:
    """Move all six momenta ``(6, *shape)`` towards the gradient ``(*shape,)``."""

    def update(momentum: Tensor, grad: Tensor) -> Tensor:
        decays = torch.tensor(MOMENTUM_DECAYS, dtype=momentum.dtype, device=momentum.device)
        return ema(momentum, grad, decays.reshape(-1, *[1] * grad.ndim))

    return tree_map(update, momenta, grads)


def tensor_features(
    params: Tree, grads: Tree, momenta: Tree, normalisation: str, *others: Tree
) -> Tree:
    """Clipped and normalised channels: parameter, gradient, six momenta; and others as they are.

    Args:
        params: parameters ``(*shape,)``.
        grads: gradients ``(*shape,)``.
        momenta: momenta ``(6, *shape)``.
        normalisation: what the mean square is taken over, always within one tensor: ``joint`` over
            all entries and channels (the paper's code, which keeps the ratios between channels),
            ``channel`` over all entries of each channel (which shows small channels at full size).
        others: more channels ``(*shape,)``, of order one.

    Returns:
        Tree: ``(*shape, 8 + number of others)`` for every parameter.
    """

    def features(param: Tensor, grad: Tensor, momentum: Tensor, *more: Tensor) -> Tensor:
        channels = torch.cat([torch.stack([param, grad]), momentum])  # (8, *shape)
        if normalisation == "joint":
            # clipped first: one spike must not hide all other entries
            channels = channels.clamp(-1, 1)
            channels = channels * torch.rsqrt(1e-5 + channels.square().mean())
        elif param.ndim:  # a scalar over its own size would be its sign alone
            channels = normalise(channels, epsilon=1e-12)

        if more:
            channels = torch.cat([channels, torch.stack(more)])
        return channels.movedim(0, -1)

    return tree_map(features, params, grads, momenta, *others)


def normalise(channels: Tensor, epsilon: float) -> Tensor:
    """Divide every channel of ``(C, *shape)`` by ``sqrt(epsilon + its mean square)``."""
    if channels.ndim > 1:
        mean_square = channels.flatten(1).square().mean(1)  # (C,)
    else:
        mean_square = channels.square()  # of a scalar parameter
    factor = torch.rsqrt(epsilon + mean_square)

    return channels * factor.reshape(-1, *[1] * (channels.ndim - 1))


def time_features(step: Tensor, dtype: torch.dtype) -> Tensor:
    """``tanh(step / tau - 1)`` for 11 time scales tau: ``(11,)``."""
    scales = torch.tensor(TIME_SCALES, dtype=dtype, device=step.device)
    return torch.tanh(step.to(dtype) / scales - 1)


class Features(nn.Module, ABC):
    """What a learned optimizer reads of every weight, and the accumulators behind it.

    They may have meta-parameters, which are then part of theta.

    Args:
        num_channels: channels C of the features.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @abstractmethod
    def init_state(self, params: Tree) -> Tree:
        """The accumulators of fresh parameters ``(*shape,)``."""

    @abstractmethod
    def forward(self, grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        """Features ``(*shape, C)`` of every parameter ``(*shape,)``, and the next accumulators."""


class MomentumFeatures(Features):
    """Gradient, parameter and six momenta, each divided by its root mean square over the tensor.

    Source: code of ``MLPLOpt`` of Metz et al. 2019 (arXiv 1810.10180), epsilon included.
    """

    def __init__(self) -> None:
        super().__init__(NUM_TENSOR_FEATURES)

    @override
    def init_state(self, params: Tree) -> Tree:
        return {"momenta": init_momenta(params)}

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        momenta = update_momenta(state["momenta"], grads)

        def features(param: Tensor, grad: Tensor, momentum: Tensor) -> Tensor:
            channels = torch.cat([torch.stack([grad, param]), momentum])  # (8, *shape)
            return normalise(channels, epsilon=1e-5).movedim(0, -1)

        return tree_map(features, params, grads, momenta), {"momenta": momenta}

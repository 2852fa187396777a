"""Input features of learned optimizers.

Source: Metz et al. 2020 (arXiv 2009.11243) and Zhou et al. 2024 (arXiv 2402.05232), appendix;
details that the text leaves open follow the authors' code: momenta are exponential moving averages,
time features are tanh ramps.

Legend: C channels; ``*shape`` the shape of a parameter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.symmetry.spec import PermutationSpec

MOMENTUM_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # inner steps
NUM_TENSOR_FEATURES = 2 + len(MOMENTUM_DECAYS)  # parameter, gradient, momenta
NUM_FEATURES = NUM_TENSOR_FEATURES + len(TIME_SCALES)
# keeps a weight that never had a gradient from 0 / 0; its rsqrt to the third power is still finite
TINY = 1e-24


@dataclass(frozen=True)
class Normalisation:
    """How parameter, gradient and momenta are brought to order one.

    Args:
        joint: clip them and divide by one root mean square of all; False for one of each channel.
        epsilon: is added to mean squares.
        scalars: treat parameters without an axis, which have a mean over one entry, like others.
    """

    joint: bool
    epsilon: float
    scalars: bool


# what ``tensor_features`` does
NORMALISATIONS = {
    "joint": Normalisation(joint=True, epsilon=1e-5, scalars=True),
    "channel": Normalisation(joint=False, epsilon=1e-12, scalars=False),
}
# what ``MomentumFeatures`` does
OF_MOMENTUM_FEATURES = Normalisation(joint=False, epsilon=1e-5, scalars=True)


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
        kind = NORMALISATIONS[normalisation]
        if kind.joint:
            # clipped first: one spike must not hide all other entries
            channels = channels.clamp(-1, 1)
            channels = channels * torch.rsqrt(kind.epsilon + channels.square().mean())
        elif param.ndim:  # a scalar over its own size would be its sign alone
            channels = normalise(channels, kind.epsilon)

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


@dataclass(frozen=True)
class Reading:
    """What an optimizer sees at one inner step.

    Args:
        grads: gradients ``(*shape,)``.
        params: parameters ``(*shape,)``.
        step: number of gradients seen, this one included: an int64 scalar.
        factors: of the gradients of single examples; None where nobody asked for them.
        spec: permutation spec of the parameters; None where nobody knows it.
    """

    grads: Tree
    params: Tree
    step: Tensor
    factors: Any = None
    spec: PermutationSpec | None = None


class Features(nn.Module, ABC):
    """What a learned optimizer reads of every weight, and the accumulators behind it.

    They may have meta-parameters, which are then part of theta.

    Args:
        num_channels: channels C of the features.

    Attributes:
        factor_needs: what is read of ``Reading.factors``, see ``factors.NEEDS``.
        separable: whether the features of a tensor depend on that tensor and the step alone.
    """

    factor_needs: frozenset[str] = frozenset()
    separable: bool = True

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @property
    def needs_factors(self) -> bool:
        """Whether ``Reading.factors`` is read."""
        return bool(self.factor_needs)

    @abstractmethod
    def init_state(self, params: Tree) -> Tree:
        """The accumulators of fresh parameters ``(*shape,)``."""

    @abstractmethod
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
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
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        momenta = update_momenta(state["momenta"], reading.grads)

        def features(param: Tensor, grad: Tensor, momentum: Tensor) -> Tensor:
            channels = torch.cat([torch.stack([grad, param]), momentum])  # (8, *shape)
            return normalise(channels, OF_MOMENTUM_FEATURES.epsilon).movedim(0, -1)

        features_of_all = tree_map(features, reading.params, reading.grads, momenta)
        return features_of_all, {"momenta": momenta}


NO_FEATURES: Mapping[str, Callable[[], Features]] = {}


class JoinedFeatures(Features):
    """The channels of several features, one behind the other.

    Args:
        constructors: name -> constructor of features; names are keys of theta and of the state.
    """

    def __init__(self, constructors: Mapping[str, Callable[[], Features]]) -> None:
        parts = {name: make() for name, make in constructors.items()}
        super().__init__(sum(part.num_channels for part in parts.values()))
        self.parts = nn.ModuleDict(parts)
        self.factor_needs = frozenset().union(*[part.factor_needs for part in parts.values()])
        self.separable = all(part.separable for part in parts.values())

    @override
    def init_state(self, params: Tree) -> Tree:
        return {name: self._part(name).init_state(params) for name in self.parts}

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        channels = []
        states = {}
        for name in self.parts:
            of_part, states[name] = self._part(name)(reading, state[name])
            channels.append(of_part)
        return join(*channels), states

    def _part(self, name: str) -> Features:
        return cast(Features, self.parts[name])


def join(*channels: Tree) -> Tree:
    """Channels ``(*shape, C_i)`` of every parameter side by side: ``(*shape, sum of C_i)``.

    Each channel stays one piece of memory, as the layers behind it read them fastest.
    """

    def joined(*parts: Tensor) -> Tensor:
        return torch.cat([part.movedim(-1, 0) for part in parts]).movedim(0, -1)

    return tree_map(joined, *channels)

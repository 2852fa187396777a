"""Inputs with an Adafactor: momenta, second moments, and second moments of which only row and column means are kept.

Legend: M momentum decays, R decays of second moments, F decays of factored ones; decays come first, axes of the
parameter after them.
"""

import torch
from torch import Tensor, nn

from learned_opt.core.tree import Tree
from learned_opt.optimizers.features import Features, ema, normalise


class AdafactorFeatures(Features):
    """Channels of a weight, each divided by its root mean square over the tensor.

    Gradient, parameter, momenta m (M), second moments v (R), m / sqrt v (M), 1 / sqrt v (R), the gradient over
    factored roots (F), row and column means (F + F), one over their roots (F + F), m over factored roots (M = F). The
    two longest axes of a tensor are factored; a vector keeps its whole second moment in their place. theta shifts the
    decays, as ``1 - (1 - decay) exp(10 shift)``.

    Args:
        momentum_decays: M of them.
        rms_decays: one, R = 1.
        adafactor_decays: F = M of them.
        with_clipped: two more channels, the gradient clipped to 0.1 and the gradient over the root of v.
        epsilon: added to mean squares that are divided by.

    Raises:
        ValueError: a decay does not lie between 0 and 1, or the numbers of decays do not fit.

    Source: code of ``AdafacMLPLOpt`` of Metz et al. 2022 (arXiv 2203.11860), with its epsilons; the two further
    channels are those of VeLO and Celo2 (where v has the epsilon 1e-8, here 1e-6).
    """

    def __init__(
        self,
        momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999),
        rms_decays: tuple[float, ...] = (0.999,),
        adafactor_decays: tuple[float, ...] = (0.9, 0.99, 0.999),
        with_clipped: bool = False,
        epsilon: float = 1e-5,
    ) -> None:
        if len(rms_decays) != 1 or len(momentum_decays) != len(adafactor_decays):
            raise ValueError(
                "decays must be one rms_decay and as many momentum_decays as adafactor_decays, got "
                f"{len(rms_decays)}, {len(momentum_decays)} and {len(adafactor_decays)}."
            )
        super().__init__(
            4 + 2 * len(momentum_decays) + 6 * len(adafactor_decays) + 2 * with_clipped
        )
        self.momentum_decays, self.rms_decays = Decays(momentum_decays), Decays(rms_decays)
        self.adafactor_decays = Decays(adafactor_decays)
        self.with_clipped, self.epsilon = with_clipped, epsilon

    def init_state(self, params: Tree) -> Tree:
        """Zero averages."""
        return {name: self._init_tensor(param) for name, param in params.items()}

    def _init_tensor(self, param: Tensor) -> Tree:
        num_momenta, num_factored = (
            len(self.momentum_decays.start),
            len(self.adafactor_decays.start),
        )
        rows, columns = _factored_shapes(param)
        return {
            "momenta": param.new_zeros(num_momenta, *param.shape),
            "second": param.new_zeros(1, *param.shape),
            "rows": param.new_zeros(num_factored, *rows),
            "columns": param.new_zeros(num_factored, *columns),
        }

    def forward(self, grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        """See ``Features.forward``."""
        features, states = {}, {}
        for name, param in params.items():
            states[name] = self._accumulate(grads[name], state[name])
            features[name] = self._channels(grads[name], param, **states[name])
        return features, states

    def _accumulate(self, grad: Tensor, state: Tree) -> Tree:
        square, longest = (grad * grad).unsqueeze(0), _longest_axes(grad)
        factored = square + 1e-30
        means = (
            [factored.mean(1 + axis, keepdim=True) for axis in longest]
            if longest
            else [factored, factored]
        )
        decays = self.adafactor_decays(grad.ndim).clamp(0, 1)
        return {
            "momenta": ema(state["momenta"], grad, self.momentum_decays(grad.ndim)),
            "second": ema(state["second"], square, self.rms_decays(grad.ndim).clamp(0, 1)),
            "rows": ema(state["rows"], means[0], decays),
            "columns": ema(state["columns"], means[1], decays),
        }

    def _channels(
        self,
        grad: Tensor,
        param: Tensor,
        momenta: Tensor,
        second: Tensor,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        raw, inverse = grad.unsqueeze(0), torch.rsqrt(second + 1e-6)
        factor = _inverse_root(grad, rows, columns)
        channels = [
            raw,
            param.unsqueeze(0),
            momenta,
            second,
            momenta * inverse,
            inverse,
            raw * factor,
        ]
        channels += [each.expand(-1, *grad.shape) for each in (rows, columns)]
        channels += [torch.rsqrt(each + 1e-8).expand(-1, *grad.shape) for each in (rows, columns)]
        channels.append(momenta * factor)
        if self.with_clipped:
            channels += [raw.clamp(-0.1, 0.1), raw * inverse]
        return normalise(torch.cat(channels), self.epsilon).movedim(0, -1)


class Decays(nn.Module):
    """Decays that theta shifts; called with a number of axes to broadcast over."""

    def __init__(self, start: tuple[float, ...]) -> None:
        super().__init__()
        for decay in start:
            if not 0 < decay < 1:
                raise ValueError(f"a decay must lie between 0 and 1, got {decay}.")
        self.start = tuple(start)
        self.shift = nn.Parameter(torch.zeros(len(start)))

    def forward(self, num_axes: int) -> Tensor:
        """The decays, ``(count, 1, ..., 1)``."""
        start = torch.tensor(self.start, dtype=self.shift.dtype, device=self.shift.device)
        return (1 - (1 - start) * torch.exp(10 * self.shift)).reshape(-1, *[1] * num_axes)


def _longest_axes(tensor: Tensor) -> tuple[int, int] | None:
    """The longest axis, over which rows are averaged, and the next longest; of equals the last."""
    order = sorted(range(tensor.ndim), key=lambda axis: tensor.shape[axis])
    return (order[-1], order[-2]) if tensor.ndim > 1 else None


def _factored_shapes(param: Tensor) -> list[list[int]]:
    longest = _longest_axes(param) or (None, None)
    return [
        [1 if axis == gone else size for axis, size in enumerate(param.shape)] for gone in longest
    ]


def _inverse_root(tensor: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One over the root of the second moment that rows and columns stand for; ``rows`` itself for a vector."""
    longest = _longest_axes(tensor)
    if longest is None:
        return _rsqrt(rows + 1e-9)
    return _rsqrt(rows / (rows.mean(1 + longest[1], keepdim=True) + 1e-9)) * _rsqrt(columns)


def _rsqrt(tensor: Tensor) -> Tensor:
    return torch.rsqrt(tensor.clamp_min(1e-9))

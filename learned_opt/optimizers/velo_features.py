"""The 30 inputs of VeLO, Celo and Celo2: momenta, second moments, factored second moments.

Legend: C channels; F = 3 decays; axes of the parameter come after them.
"""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import check_between_0_and_1, check_positive
from learned_opt.optimizers.factored import (
    inverse_root,
    kernel_axes,
    moved_means,
    shapes_without,
)
from learned_opt.optimizers.features import Features, Reading, ema

DECAYS = (0.9, 0.99, 0.999)  # of momenta and of factored second moments
CLIP = 0.1  # of the second channel
# widths of the blocks, in the order of the channels: names of weights in files of others count them
WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
NUM_CHANNELS = sum(WIDTHS)
NUM_UNFACTORED = sum(WIDTHS[:9])  # channels before the means of rows and columns


class VeLOFeatures(Features):
    """Channels of a weight, each divided by its root mean square. Decays are constants.

    Gradient, gradient clipped to 0.1, parameter, momenta m (3), second moment v, m / sqrt v (3),
    1 / sqrt v, gradient over factored roots (3), gradient over the root of v, row and column means
    (3 + 3), one over their roots (3 + 3), m over factored roots (3). The two longest axes of a
    tensor are factored, of equals those that JAX takes of the same kernel. A vector keeps its whole
    second moments in the place of row and column means; a scalar is a vector of one.

    Args:
        rms_decay: of v.
        rms_epsilon: added to v under a root.
        epsilon: added to mean squares that are divided by.
        per_position: mean squares are taken over the first two axes, for each kernel position,
            in the place of all axes.
        vector_means: give vectors the channels of row and column means, which repeat their second
            moments; else these are zero.

    Raises:
        ValueError: a value is out of its range.

    Source: code of VeLO, Metz et al. 2022 (arXiv 2211.09760); of Celo and Celo2, Moudgil et al.
    2025 (arXiv 2501.12670) and 2026 (arXiv 2602.19142).
    """

    def __init__(
        self,
        rms_decay: float = 0.999,
        rms_epsilon: float = 1e-6,
        epsilon: float = 1e-5,
        per_position: bool = False,
        vector_means: bool = True,
    ) -> None:
        super().__init__(NUM_CHANNELS)
        check_between_0_and_1(rms_decay=rms_decay)
        check_positive(rms_epsilon=rms_epsilon, epsilon=epsilon)
        self.rms_decay = rms_decay
        self.rms_epsilon = rms_epsilon
        self.epsilon = epsilon
        self.per_position = per_position
        self.vector_means = vector_means

    @override
    def init_state(self, params: Tree) -> Tree:
        states = {}
        for name, param in params.items():
            row_shape, column_shape = shapes_without(param, kernel_axes(param))
            states[name] = {
                "momenta": param.new_zeros(len(DECAYS), *param.shape),
                "second": torch.zeros_like(param),
                "rows": param.new_zeros(len(DECAYS), *row_shape),
                "columns": param.new_zeros(len(DECAYS), *column_shape),
            }
        return states

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        features = {}
        states = {}
        for name, param in reading.params.items():
            grad = reading.grads[name]
            states[name] = self._accumulate(grad, state[name])
            channels = self._channels(grad, param, **states[name])
            features[name] = self._normalise(channels).movedim(0, -1)
        return features, states

    def _accumulate(self, grad: Tensor, state: Tree) -> Tree:
        decays = torch.tensor(DECAYS, dtype=grad.dtype, device=grad.device)
        decays = decays.reshape(-1, *[1] * grad.ndim)
        square = grad * grad

        longest = kernel_axes(grad)
        rows, columns = moved_means(state["rows"], state["columns"], square, decays, longest)
        return {
            "momenta": ema(state["momenta"], grad, decays),
            "second": ema(state["second"], square, self.rms_decay),
            "rows": rows,
            "columns": columns,
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
        """All channels ``(C, *shape)`` of one tensor, in the order that the class names."""
        raw = grad.unsqueeze(0)
        second = second.unsqueeze(0)
        inverse = torch.rsqrt(second + self.rms_epsilon)
        grad_inverse, momentum_inverse = _inverse_roots(grad, rows, columns)

        channels = [raw, raw.clamp(-CLIP, CLIP), param.unsqueeze(0), momenta, second]
        channels += [momenta * inverse, inverse, raw * grad_inverse, raw * inverse]
        if grad.ndim > 1 or self.vector_means:
            channels += [means.expand(-1, *grad.shape) for means in (rows, columns)]
            for means in (rows, columns):
                channels.append(torch.rsqrt(means + 1e-8).expand(-1, *grad.shape))
            channels.append(momenta * momentum_inverse)
        else:
            channels.append(grad.new_zeros(NUM_CHANNELS - NUM_UNFACTORED, *grad.shape))
        return torch.cat(channels)

    def _normalise(self, channels: Tensor) -> Tensor:
        """Channels ``(C, *shape)`` over their root mean squares."""
        axes = list(range(1, channels.ndim))
        if self.per_position:
            axes = axes[:2]
        mean_square = channels.square()
        if axes:
            mean_square = mean_square.mean(axes, keepdim=True)
        return channels * torch.rsqrt(self.epsilon + mean_square)


def _inverse_roots(like: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """One over the root of the second moments that rows and columns stand for, ``(F, *shape)``.

    What the gradient is multiplied by, and what the momenta are: they differ for a vector, whose
    second moment ``rows`` is.
    """
    longest = kernel_axes(like)
    inverse = inverse_root(rows, columns, longest)
    return inverse, torch.rsqrt(rows) if longest is None else inverse

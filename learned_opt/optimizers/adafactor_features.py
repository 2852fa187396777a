"""Inputs with an Adafactor: momenta, second moments, and factored second moments.

Of a factored second moment only row and column means are kept.

Legend: M momentum decays, R decays of second moments, F decays of factored ones; decays come first,
axes of the parameter after them.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.factored import factored_shapes, inverse_root, longest_axes, moved_means
from learned_opt.optimizers.features import Features, Reading, ema, normalise


class AdafactorFeatures(Features):
    """Channels of a weight, each divided by its root mean square over the tensor.

    Gradient, parameter, momenta m (M), second moments v (R), m / sqrt v (M), 1 / sqrt v (R), the
    gradient over factored roots (F), row and column means (F + F), one over their roots (F + F),
    m over factored roots (M = F). The two longest axes of a tensor are factored; a vector keeps its
    whole second moment in their place. theta shifts the decays, as
    ``1 - (1 - decay) exp(10 shift)``.

    Args:
        momentum_decays: M of them.
        rms_decays: one, R = 1.
        adafactor_decays: F = M of them.
        with_clipped: two more channels, the gradient clipped to 0.1 and the gradient over the root
            of v.
        epsilon: added to mean squares that are divided by.

    Raises:
        ValueError: a decay does not lie between 0 and 1, or the numbers of decays do not fit.

    Source: code of ``AdafacMLPLOpt`` of Metz et al. 2022 (arXiv 2203.11860), with its epsilons; the
    two further channels are those of VeLO and Celo2 (where v has the epsilon 1e-8, here 1e-6).
    """

    def __init__(
        self,
        momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999),
        rms_decays: tuple[float, ...] = (0.999,),
        adafactor_decays: tuple[float, ...] = (0.9, 0.99, 0.999),
        with_clipped: bool = False,
        epsilon: float = 1e-5,
    ) -> None:
        num_momenta = len(momentum_decays)
        num_factored = len(adafactor_decays)
        if len(rms_decays) != 1 or num_momenta != num_factored:
            raise ValueError(
                "decays must be one rms_decay and as many momentum_decays as adafactor_decays, got "
                f"{len(rms_decays)}, {num_momenta} and {num_factored}."
            )

        super().__init__(4 + 2 * num_momenta + 6 * num_factored + 2 * with_clipped)
        self.momentum_decays = Decays(momentum_decays)
        self.rms_decays = Decays(rms_decays)
        self.adafactor_decays = Decays(adafactor_decays)
        self.with_clipped = with_clipped
        self.epsilon = epsilon

    @override
    def init_state(self, params: Tree) -> Tree:
        return {name: self._init_tensor(param) for name, param in params.items()}

    def _init_tensor(self, param: Tensor) -> Tree:
        num_momenta = len(self.momentum_decays.start)
        num_factored = len(self.adafactor_decays.start)
        row_shape, column_shape = factored_shapes(param)
        return {
            "momenta": param.new_zeros(num_momenta, *param.shape),
            "second": param.new_zeros(1, *param.shape),
            "rows": param.new_zeros(num_factored, *row_shape),
            "columns": param.new_zeros(num_factored, *column_shape),
        }

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        features = {}
        states = {}
        for name, param in reading.params.items():
            grad = reading.grads[name]
            states[name] = self._accumulate(grad, state[name])
            features[name] = self._channels(grad, param, **states[name])
        return features, states

    def _accumulate(self, grad: Tensor, state: Tree) -> Tree:
        square = grad * grad
        factored_decays = self.adafactor_decays(grad.ndim).clamp(0, 1)  # (F, 1, ..., 1)
        second_decays = self.rms_decays(grad.ndim).clamp(0, 1)
        means = (state["rows"], state["columns"])
        rows, columns = moved_means(*means, square, factored_decays, longest_axes(grad))
        return {
            "momenta": ema(state["momenta"], grad, self.momentum_decays(grad.ndim)),
            "second": ema(state["second"], square, second_decays),
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
        """All channels ``(*shape, C)`` of one tensor, in the order that the class names."""
        raw = grad.unsqueeze(0)
        inverse = torch.rsqrt(second + 1e-6)
        factored_inverse = inverse_root(rows, columns, longest_axes(grad))

        channels = [raw, param.unsqueeze(0), momenta, second, momenta * inverse, inverse]
        channels.append(raw * factored_inverse)
        channels += [means.expand(-1, *grad.shape) for means in (rows, columns)]
        for means in (rows, columns):
            channels.append(torch.rsqrt(means + 1e-8).expand(-1, *grad.shape))

        channels.append(momenta * factored_inverse)
        if self.with_clipped:
            channels += [raw.clamp(-0.1, 0.1), raw * inverse]

        return normalise(torch.cat(channels), self.epsilon).movedim(0, -1)


class Decays(nn.Module):
    """Decays that theta shifts; called with a number of axes to broadcast over.

    Args:
        start: the decays before theta shifts them.

    Raises:
        ValueError: one does not lie between 0 and 1.
    """

    def __init__(self, start: tuple[float, ...]) -> None:
        super().__init__()
        for decay in start:
            if not 0 < decay < 1:
                raise ValueError(f"a decay must lie between 0 and 1, got {decay}.")
        self.start = tuple(start)
        self.shift = nn.Parameter(torch.zeros(len(start)))

    def forward(self, num_axes: int) -> Tensor:
        """The shifted decays, ``(count, 1, ..., 1)`` with ``num_axes`` ones."""
        start = torch.tensor(self.start, dtype=self.shift.dtype, device=self.shift.device)
        # theta moves the logarithm of what a decay leaves over, so 0.9 and 0.999 move alike
        decays = 1 - (1 - start) * torch.exp(10 * self.shift)
        return decays.reshape(-1, *[1] * num_axes)

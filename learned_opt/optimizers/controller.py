"""An LSTM for every tensor that turns the knobs of Adam.

Legend: T tensors, H hidden units.
"""

from math import log

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_between_0_and_1,
    check_positive,
    init_step,
)
from learned_opt.optimizers.features import ema
from learned_opt.optimizers.lstm import LSTMCell
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.mixing import matmul

# kept as a tenth of log lr, log(1 - beta1), log(1 - beta2), log eps
KNOBS = ("lr", "beta1", "beta2", "eps")
LOWEST = (-1.84, -1.0, -1.0, -2.53)  # lr 1e-8, eps 1e-11
HIGHEST = (0.69, 0.0, 0.0, 0.92)  # lr 1e3, eps 1e4
NUM_FEATURES = 19
# means below this have no sign: that of a read-out's bias gradient is zero but for rounding
FAINT = 1e-5


class AdamController(MetaOptimizer):
    """Adam whose learning rate, betas and eps move at every step, for each tensor by an LSTM.

    The LSTM sees statistics of the tensor. ``update = -lr (1 + eps) m / (eps + sqrt(v + 1e-10))``:
    with a large eps it is SGD with momentum at rate lr. At the start the LSTM moves nothing.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        hidden_size: H.
        output_scale: how far one step moves the knobs.
        lr: learning rate at the start, learned, as are the other three.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.

    Raises:
        ValueError: a value is out of its range.

    Source: code of ``NNAdam`` of Metz et al. 2020 (arXiv 2009.11243); the first state of the LSTM
    is zero, not learned, and signs of means fade towards 0.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        hidden_size: int = 32,
        output_scale: float = 0.01,
        lr: float = 1e-2,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_size=hidden_size)
        check_positive(output_scale=output_scale, lr=lr, eps=eps)
        check_between_0_and_1(beta1=beta1, beta2=beta2)

        logarithms = torch.tensor([log(lr), log(1 - beta1), log(1 - beta2), log(eps)])
        self.knobs = nn.Parameter(logarithms / 10)
        self.cell = LSTMCell(NUM_FEATURES, hidden_size)
        self.weight = nn.Parameter(torch.zeros(hidden_size, 4))
        self.bias = nn.Parameter(torch.zeros(4))
        self.hidden_size = hidden_size
        self.output_scale = output_scale

    @override
    def init_state(self, params: Tree) -> Tree:
        return {
            "step": init_step(params),
            "first": {name: torch.zeros_like(param) for name, param in params.items()},
            "second": {name: torch.zeros_like(param) for name, param in params.items()},
            # how far the knobs are from where theta has them
            "moved": {name: param.new_zeros(len(KNOBS)) for name, param in params.items()},
            "lstm": {name: param.new_zeros(2, self.hidden_size) for name, param in params.items()},
        }

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss
        moved = torch.stack([state["moved"][name] for name in params])  # (T, 4)
        lstm_state = torch.stack([state["lstm"][name] for name in params])  # (T, 2, H)
        knobs = self._clip(self.knobs + moved)  # (T, 4)

        updates = {}
        first = {}
        second = {}
        features = []
        for (name, param), knob in zip(params.items(), knobs.unbind(0), strict=True):
            lr, left1, left2, eps = (10 * knob).exp().unbind(-1)  # left: what 1 - beta is
            grad = grads[name].clamp(-1000, 1000)
            first[name] = ema(state["first"][name], grad, 1 - left1)
            second[name] = ema(state["second"][name], grad * grad, 1 - left2)
            updates[name] = -lr * (1 + eps) * first[name] / (eps + torch.sqrt(second[name] + 1e-10))
            features.append(statistics(param, grad, first[name], second[name], knob))

        hidden = self.cell(torch.stack(features), lstm_state.movedim(1, 0))  # (2, T, H)
        output = matmul(hidden[0], self.weight) + self.bias
        moved = self._clip(knobs + self.output_scale * output) - self.knobs

        return updates, {
            "step": state["step"] + 1,
            "first": first,
            "second": second,
            "moved": dict(zip(params, moved.unbind(0), strict=True)),
            "lstm": dict(zip(params, hidden.unbind(1), strict=True)),
        }

    def _clip(self, knobs: Tensor) -> Tensor:
        lowest = torch.tensor(LOWEST, dtype=knobs.dtype, device=knobs.device)
        highest = torch.tensor(HIGHEST, dtype=knobs.dtype, device=knobs.device)
        return torch.minimum(torch.maximum(knobs, lowest), highest)


def statistics(param: Tensor, grad: Tensor, first: Tensor, second: Tensor, knobs: Tensor) -> Tensor:
    """The features ``(19,)`` of a tensor that the LSTM reads.

    Logarithms of the sizes of means and variances of moments, parameter and gradient, the signs of
    the means, the mean size of the gradient, whether it is a scalar or a vector, and the knobs.

    Args:
        param: ``(*shape,)``.
        grad: ``(*shape,)``.
        first: first moment ``(*shape,)``.
        second: second moment ``(*shape,)``.
        knobs: ``(4,)``.
    """
    values = []
    for tensor in (first, second, param, grad):
        mean = tensor.mean()
        variance = (tensor - mean).square().mean()
        values += [_log_size(mean), mean / (mean.abs() + FAINT), _log_size(variance)]
    values.append(_log_size(grad.abs().mean()))

    is_scalar = grad.new_tensor(1.0 if grad.ndim == 0 else -1.0)
    is_vector = grad.new_tensor(1.0 if grad.ndim == 1 else -1.0)
    of_tensor = torch.stack([*values, is_scalar, is_vector])  # (15,)
    return torch.cat([of_tensor, 0.2 * knobs.clamp(-5, 5)])


def _log_size(value: Tensor) -> Tensor:
    return 0.5 * torch.log(value.abs() + 1e-8).clamp(-5, 5)

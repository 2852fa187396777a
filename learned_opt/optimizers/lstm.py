"""The coordinate-wise LSTM: a small recurrent network for every weight, the same for all.

Legend: L layers, H hidden units; a state holds ``(2, *shape, H)`` for each layer, output and cell.
"""

from itertools import pairwise
from math import exp, sqrt

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    check_positive,
    init_step,
)
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.mixing import matmul


class LSTMCell(nn.Module):
    """One step of an LSTM on the last axis.

    Weights start as ``U(-1/sqrt H, 1/sqrt H)``, with open forget gates.

    Args:
        num_inputs: length of the last axis of the inputs.
        hidden_size: H.
    """

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__()
        bound = 1 / sqrt(hidden_size)
        weight = torch.empty(num_inputs + hidden_size, 4 * hidden_size).uniform_(-bound, bound)
        bias = torch.cat([torch.ones(hidden_size), torch.zeros(3 * hidden_size)])
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The next state.

        Args:
            inputs: ``(*shape, num_inputs)``.
            state: output and cell of the step before, ``(2, *shape, H)``.

        Returns:
            Tensor: output and cell, ``(2, *shape, H)``.
        """
        output, cell = state.unbind(0)
        gates = matmul(torch.cat([inputs, output], -1), self.weight) + self.bias
        forget, write, read, candidate = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + write.sigmoid() * candidate.tanh()
        return torch.stack([read.sigmoid() * cell.tanh(), cell])


class LSTMOptimizer(MetaOptimizer):
    """``update = step_mult (w . LSTM(log-size and sign of the gradient) + b)``, weight by weight.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        hidden_size: H.
        num_layers: L.
        step_mult: of the output, in units of parameters.
        log_range: gradients below ``exp(-log_range)`` are read as they are, larger ones by
            logarithm and sign.

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1 and appendix A. Its
    meta-gradient leaves out how gradients depend on theta; ``bptt`` here does not.
    """

    separable = True

    def __init__(
        self,
        spec: PermutationSpec,
        hidden_size: int = 20,
        num_layers: int = 2,
        step_mult: float = 0.01,
        log_range: float = 10.0,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(hidden_size=hidden_size, num_layers=num_layers)
        check_positive(step_mult=step_mult, log_range=log_range)

        sizes = [2, *[hidden_size] * num_layers]
        self.cells = nn.ModuleList(LSTMCell(*pair) for pair in pairwise(sizes))
        self.weight = nn.Parameter(torch.randn(hidden_size, 1) / sqrt(hidden_size))
        self.bias = nn.Parameter(torch.zeros(1))
        self.hidden_size = hidden_size
        self.step_mult = step_mult
        self.log_range = log_range

    @override
    def init_state(self, params: Tree) -> Tree:
        state: Tree = {"step": init_step(params)}
        for i in range(len(self.cells)):
            state[f"layer{i}"] = tree_map(self._init_layer, params)
        return state

    def _init_layer(self, param: Tensor) -> Tensor:
        return param.new_zeros(2, *param.shape, self.hidden_size)

    @override
    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        del loss, params
        state_after: Tree = {"step": state["step"] + 1}
        hidden = tree_map(lambda grad: log_and_sign(grad, self.log_range), grads)  # (*shape, 2)
        for i, cell in enumerate(self.cells):
            layer = tree_map(cell, hidden, state[f"layer{i}"])  # (2, *shape, H)
            state_after[f"layer{i}"] = layer
            hidden = tree_map(lambda output_and_cell: output_and_cell[0], layer)

        return tree_map(self._update, hidden), state_after

    def _update(self, hidden: Tensor) -> Tensor:
        return self.step_mult * (matmul(hidden, self.weight) + self.bias).squeeze(-1)


def log_and_sign(grad: Tensor, log_range: float) -> Tensor:
    """Two numbers for each entry of a gradient, at most about 1 in size: ``(*shape, 2)``.

    ``(log|g| / log_range, sign g)``, or ``(-1, g exp(log_range))`` where
    ``|g| < exp(-log_range)``. Both are continuous; the bound holds for gradients up to
    ``exp(log_range)``.

    >>> log_and_sign(torch.tensor([1.0, 0.0]), 10.0).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    least = exp(-log_range)
    size = grad.abs()
    logarithm = torch.log(size.clamp_min(least)) / log_range
    sign = torch.where(size < least, grad / least, torch.sign(grad))
    return torch.stack([logarithm, sign], -1)

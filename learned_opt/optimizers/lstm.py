"""The coordinate-wise LSTM: a small recurrent network for every weight, the same for all.

Legend: L layers, H hidden units; a state holds ``(2, *shape, H)`` for each layer, output and cell.
"""

from itertools import pairwise
from math import exp, sqrt
from typing import Self

import torch
from torch import Tensor, nn

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.mixing import matmul


class LSTMCell(nn.Module):
    """One step of an LSTM on the last axis; weights ``U(-1/sqrt H, 1/sqrt H)``, forget gates open at the start.

    Args:
        num_inputs: inputs.
        hidden_size: H.
    """

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__()
        bound = 1 / sqrt(hidden_size)
        self.weight = nn.Parameter(
            torch.empty(num_inputs + hidden_size, 4 * hidden_size).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.cat([torch.ones(hidden_size), torch.zeros(3 * hidden_size)]))

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Next output and cell ``(2, *shape, H)`` from inputs ``(*shape, num_inputs)`` and those of the step before."""
        output, cell = state.unbind(0)
        gates = matmul(torch.cat([inputs, output], -1), self.weight) + self.bias
        forget, write, read, candidate = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + write.sigmoid() * candidate.tanh()
        return torch.stack([read.sigmoid() * cell.tanh(), cell])


class LSTMOptimizer(MetaOptimizer):
    """``update = step_mult (w . LSTM(log-size and sign of the gradient) + b)``, for every weight on its own.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        hidden_size: H.
        num_layers: L.
        step_mult: of the output, in units of parameters.
        log_range: gradients below ``exp(-log_range)`` are read as they are, larger ones by logarithm and sign.

    Raises:
        ValueError: a size or multiplier is not positive.

    Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1 and appendix A. Its meta-gradient leaves out how
    gradients depend on theta; ``bptt`` here does not.
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
        for name, value in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        for name, value in (("step_mult", step_mult), ("log_range", log_range)):
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        sizes = [2, *[hidden_size] * num_layers]
        self.cells = nn.ModuleList(LSTMCell(*pair) for pair in pairwise(sizes))
        self.weight = nn.Parameter(torch.randn(hidden_size, 1) / sqrt(hidden_size))
        self.bias = nn.Parameter(torch.zeros(1))
        self.hidden_size, self.step_mult, self.log_range = hidden_size, step_mult, log_range

    def init_state(self, params: Tree) -> Tree:
        """Zero outputs and cells, and step."""
        step = torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)
        zeros = tree_map(lambda param: param.new_zeros(2, *param.shape, self.hidden_size), params)
        return {
            "step": step,
            **{f"layer{i}": tree_map(torch.clone, zeros) for i in range(len(self.cells))},
        }

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del loss, params
        hidden, after = (
            tree_map(lambda grad: log_and_sign(grad, self.log_range), grads),
            {"step": state["step"] + 1},
        )
        for i, cell in enumerate(self.cells):
            after[f"layer{i}"] = tree_map(cell, hidden, state[f"layer{i}"])
            hidden = tree_map(lambda both: both[0], after[f"layer{i}"])
        return tree_map(self._update, hidden), after

    def _update(self, hidden: Tensor) -> Tensor:
        return self.step_mult * (matmul(hidden, self.weight) + self.bias).squeeze(-1)

    def rebind(self, spec: PermutationSpec) -> Self:
        """Fits every spec."""
        return self._on(spec)


def log_and_sign(grad: Tensor, log_range: float) -> Tensor:
    """``(log|g| / log_range, sign g)``, or ``(-1, g exp(log_range))`` where ``|g| < exp(-log_range)``: ``(*shape, 2)``.

    Both are continuous, and at most about 1 in size for gradients up to ``exp(log_range)``.
    """
    least = exp(-log_range)
    size = grad.abs()
    logarithm = torch.log(size.clamp_min(least)) / log_range
    sign = torch.where(size < least, grad / least, torch.sign(grad))
    return torch.stack([logarithm, sign], -1)

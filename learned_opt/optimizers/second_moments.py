"""Inputs in units of their own size or noise: gradient and momentum over the root of an average.

Legend: D decays of second moments.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers import factored as factors_of_squares
from learned_opt.optimizers.base import check_between_0_and_1, check_positive
from learned_opt.optimizers.factors import SQUARES as OF_EXAMPLES
from learned_opt.optimizers.factors import FactorTree
from learned_opt.optimizers.features import TINY, Features, Reading, ema

SQUARES = ("batch", "examples", "errors")


class SecondMoments(Features):
    """``clip(g / sqrt v)`` and ``clip(m / sqrt v)`` for every second moment v: 2 D channels.

    v is an average of the squares of the gradients, without the bias of its start; m is an average
    of the gradients as it is. Both ratios are of order one for every entry, so that entries whose
    gradients are small beside those of their tensor are not lost among the large ones. Scaling the
    loss changes nothing.

    Args:
        decays: D of them, of the second moments.
        momentum_decay: of m.
        limit: the largest size of a ratio, where it is clipped.
        factored: of the squares of a tensor of two axes or more only row and column means are
            kept, see ``factored``.
        squares: of what v is the average. ``batch``: of the squares of the gradient of the batch.
            ``examples``: of the mean squares of the gradients of its B examples, over B, which is
            the noise that a batch has, known from each batch alone; ``errors``: of the squares of
            the gradient's standard error, the same without the square of the mean. Those two need
            the factors of the gradients; a parameter without them has channels of zero.

    Raises:
        ValueError: no decay, one outside of (0, 1), a limit that is not positive, or squares that
            are none of the three.

    Source: the ratios are the direction of Adam, Kingma & Ba 2015 (arXiv 1412.6980), as inputs
    first in Wichrowska et al. 2017 (arXiv 1703.04813), section 3.3.

    >>> from learned_opt.optimizers.features import Reading
    >>> features = SecondMoments()
    >>> params = {"bias": torch.zeros(2)}
    >>> reading = Reading({"bias": torch.tensor([3.0, -0.01])}, params, torch.tensor(1))
    >>> channels, _ = features(reading, features.init_state(params))
    >>> [[round(value, 2) for value in entry] for entry in channels["bias"].tolist()]
    [[1.0, 0.1], [-1.0, -0.1]]
    """

    def __init__(
        self,
        decays: Sequence[float] = (0.95,),
        momentum_decay: float = 0.9,
        limit: float = 5.0,
        factored: bool = False,
        squares: str = "batch",
    ) -> None:
        if not decays:
            raise ValueError("decays must hold at least one decay, got none.")
        for decay in decays:
            check_between_0_and_1(decays=decay)
        check_between_0_and_1(momentum_decay=momentum_decay)
        check_positive(limit=limit)
        if squares not in SQUARES:
            raise ValueError(f"squares must be one of {', '.join(SQUARES)}, got {squares!r}.")

        super().__init__(2 * len(decays))
        self.decays = tuple(decays)
        self.momentum_decay = momentum_decay
        self.limit = limit
        self.factored = factored
        self.squares = squares
        if squares != "batch":
            self.factor_needs = frozenset({OF_EXAMPLES})

    @override
    def init_state(self, params: Tree) -> Tree:
        return {
            "momentum": tree_map(torch.zeros_like, params),
            "squares": tree_map(self._init_squares, params),
        }

    def _init_squares(self, param: Tensor) -> Tree | Tensor:
        count = len(self.decays)
        if not self.factored:
            return param.new_zeros(count, *param.shape)

        row_shape, column_shape = factors_of_squares.factored_shapes(param)
        return {
            "rows": param.new_zeros(count, *row_shape),
            "columns": param.new_zeros(count, *column_shape),
        }

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        momenta = {}
        squares = {}
        channels = {}
        for name, grad in reading.grads.items():
            momenta[name] = ema(state["momentum"][name], grad, self.momentum_decay)
            square = self._square(name, grad, reading.factors)
            squares[name] = self._average(state["squares"][name], square)
            second = self._second_moments(squares[name], grad, reading.step)  # (D, *shape)

            inverse = torch.rsqrt(second + TINY)
            ratios = torch.cat([grad * inverse, momenta[name] * inverse])  # (2 D, *shape)
            if self.needs_factors and name not in reading.factors:
                ratios = torch.zeros_like(ratios)
            channels[name] = ratios.clamp(-self.limit, self.limit).movedim(0, -1)
        return channels, {"momentum": momenta, "squares": squares}

    def _square(self, name: str, grad: Tensor, factors: FactorTree | None) -> Tensor:
        if not self.needs_factors:
            return grad * grad

        of_param = cast(FactorTree, factors).get(name)
        if of_param is None:
            return torch.zeros_like(grad)
        return of_param.squares() if self.squares == "examples" else of_param.error_squares()

    def _average(self, average: Tree | Tensor, squares: Tensor) -> Tree | Tensor:
        decays = self._decays(squares)
        if isinstance(average, Tensor):
            return ema(average, squares, decays)

        rows, columns = factors_of_squares.row_and_column_means(squares)
        return {
            "rows": ema(average["rows"], rows, decays),
            "columns": ema(average["columns"], columns, decays),
        }

    def _second_moments(self, average: Tree | Tensor, like: Tensor, step: Tensor) -> Tensor:
        """Second moments ``(D, *shape)`` without the bias of the zeros that they began at."""
        if not isinstance(average, Tensor):
            average = factors_of_squares.outer_product(average["rows"], average["columns"], like)
        return average / (1 - self._decays(like) ** step)

    def _decays(self, like: Tensor) -> Tensor:
        """``(D, 1, ..., 1)`` with a 1 for each axis of a tensor."""
        decays = torch.tensor(self.decays, dtype=like.dtype, device=like.device)
        return decays.reshape(-1, *[1] * like.ndim)

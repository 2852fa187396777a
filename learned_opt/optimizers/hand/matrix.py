"""Rules that see a parameter as a matrix."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, logit_parameter

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # of x, x^3, x^5: five rounds bring singular values near 1
WIDE = 3  # columns for each row from which Newton-Schulz rounds work on the Gram matrix: 1.5 times faster there, 5 at 40


class Muon(Rule):
    """The momentum with its singular values set to about 1, for tensors of two axes or more; theta = logit gamma.

    A step has the root mean square of a step of Adam at the same learning rate (0.2), so that both share one. Further
    axes of a tensor are taken as one with the second; vectors move by another rule.

    Args:
        gamma: decay of the momentum (Nesterov's).
        vectors: constructor of the rule for tensors of fewer axes.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scale of Liu et al. 2025 (arXiv 2502.16982), as in
    ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, but in the precision of the gradient rather than bfloat16.
    """

    def __init__(self, gamma: float = 0.95, vectors: Callable[[], Rule] = Adam) -> None:
        super().__init__()
        self.logit_gamma, self.vectors = logit_parameter("gamma", gamma), vectors()

    def init_state(self, param: Tensor) -> RuleState:
        """Zero momentum."""
        return (
            {"momentum": torch.zeros_like(param)}
            if param.ndim > 1
            else self.vectors.init_state(param)
        )

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        if param.ndim < 2:
            return self.vectors(grad, state, param, info)
        gamma = self.logit_gamma.sigmoid()
        momentum = ema(state["momentum"], grad, gamma)
        direction = orthogonalise(ema(momentum, grad, gamma).flatten(1))
        scale = 0.2 * sqrt(max(direction.shape))
        return -info.lr * scale * direction.reshape(grad.shape), {"momentum": momentum}


def orthogonalise(matrix: Tensor, rounds: int = 5, eps: float = 1e-7) -> Tensor:
    """A matrix with the singular vectors of ``matrix`` and singular values near 1, by Newton-Schulz rounds.

    Args:
        matrix: ``(rows, columns)``.
        rounds: each one product of the Gram matrix; five bring all but tiny singular values into 0.7 to 1.2.
        eps: least Frobenius norm that is divided by.
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if transposed else matrix
    wide = wide / wide.square().sum().clamp_min(eps**2).sqrt()
    if wide.shape[1] >= WIDE * wide.shape[0]:
        result = _newton_schulz_factor(wide @ wide.mT, rounds) @ wide
    else:
        linear, result = NEWTON_SCHULZ[0], wide
        for _ in range(rounds):
            result = torch.addmm(result, _odd_part(result @ result.mT), result, beta=linear)
    return result.mT if transposed else result


def _odd_part(gram: Tensor) -> Tensor:
    """``b g + c g^2``: a round takes x to ``(a + b g + c g^2) x``, g the Gram matrix of x."""
    _, cubic, quintic = NEWTON_SCHULZ
    return torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)


def _newton_schulz_factor(gram: Tensor, rounds: int) -> Tensor:
    """What all rounds together multiply a matrix by, a polynomial of its Gram matrix ``(rows, rows)``.

    The long axis is touched twice in place of twice a round. Rounding is that of the Gram matrix, 1e-4 of the result in
    float32 where rounds on the matrix itself have 1e-6.
    """
    linear, factor = NEWTON_SCHULZ[0], torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for left in reversed(range(rounds)):
        odd = _odd_part(gram)
        factor = torch.addmm(factor, odd, factor, beta=linear)
        if left:
            half = torch.addmm(gram, odd, gram, beta=linear)
            gram = torch.addmm(half, half, odd, beta=linear)
    return factor


class Shampoo(Rule):
    """``update = -lr L^{-1/4} g R^{-1/4}``, L and R the sums of ``g g^T`` and ``g^T g``, eps times identity at first.

    A tensor of k axes has one sum for each and exponent -1 / 2k. The roots are taken at every step, since chains side
    by side may stand at different steps. The meta-gradient takes them as constants: eigenvectors of equal eigenvalues
    have no derivative.

    Args:
        eps: of the start.
        largest: longest axis that has a sum; longer ones stay as they are.

    Source: Gupta et al. 2018 (arXiv 1802.09568), algorithm 2.
    """

    def __init__(self, eps: float = 1e-6, largest: int = 1024) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.eps, self.largest = eps, largest

    def init_state(self, param: Tensor) -> RuleState:
        """Small identities, ``(length, length)`` for each axis."""
        sizes = {
            f"axis{axis}": size for axis, size in enumerate(param.shape) if size <= self.largest
        }
        return {
            axis: self.eps * torch.eye(size, dtype=param.dtype, device=param.device)
            for axis, size in sizes.items()
        }

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        sums, direction = {}, grad
        for axis, size in enumerate(param.shape):
            name = f"axis{axis}"
            if name in state:
                unfolded, moved = (
                    grad.movedim(axis, 0).reshape(size, -1),
                    direction.movedim(axis, 0),
                )
                sums[name] = state[name] + unfolded @ unfolded.mT
                inverse = inverse_root(sums[name].detach(), 2 * param.ndim)
                direction = (
                    (inverse @ moved.reshape(size, -1)).reshape(moved.shape).movedim(0, axis)
                )
        return -info.lr * direction, sums


def inverse_root(matrix: Tensor, order: int) -> Tensor:
    """``matrix^{-1/order}`` of a symmetric positive matrix ``(n, n)``."""
    values, vectors = eigh(matrix)
    least = torch.finfo(matrix.dtype).eps * values.amax()  # rounding may leave small ones negative
    return (vectors * torch.maximum(values, least) ** (-1 / order)) @ vectors.mT


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric ``(n, n)``; of one that is not finite, those of the identity.

    LAPACK refuses a whole batch for one such matrix, and the chains that have not diverged must go on. Scaled to
    entries of at most one, since large ones overflow on the way; in float64, since in float32 it does not converge for
    some matrices of low rank, such as those of an embedding most of whose rows have no gradient.
    """
    size = matrix.abs().amax()
    finite = size.isfinite()
    scale = torch.where(finite & (size > 0), size, 1.0)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    values, vectors = torch.linalg.eigh(torch.where(finite, matrix / scale, identity).double())
    return values.to(matrix) * scale, vectors.to(matrix)

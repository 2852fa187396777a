"""Matrix functions that chains side by side can take: orthogonal factors, roots, eigenvectors."""

import torch
from torch import Tensor

# of x, x^3, x^5: five rounds bring singular values near 1
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# columns for each row from which rounds work on the Gram matrix: 1.5 times faster there, 5 at 40
WIDE = 3


def orthogonalise(matrix: Tensor, rounds: int = 5, eps: float = 1e-7) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, by Newton-Schulz rounds.

    Args:
        matrix: ``(rows, columns)``.
        rounds: each one product of the Gram matrix; five bring all but tiny singular values into
            0.7 to 1.2.
        eps: least Frobenius norm that is divided by.

    Returns:
        Tensor: ``(rows, columns)``.

    >>> _ = torch.manual_seed(0)
    >>> values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 5)))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if transposed else matrix
    wide = wide / torch.linalg.vector_norm(wide).clamp_min(eps)

    if wide.shape[1] >= WIDE * wide.shape[0]:
        result = _newton_schulz_factor(wide @ wide.mT, rounds) @ wide
    else:
        linear = NEWTON_SCHULZ[0]
        result = wide
        for _ in range(rounds):
            odd = _odd_part(result @ result.mT)
            result = torch.addmm(result, odd, result, beta=linear)

    return result.mT if transposed else result


def _odd_part(gram: Tensor) -> Tensor:
    """``b g + c g^2``: a round takes x to ``(a + b g + c g^2) x``, g the Gram matrix of x."""
    _, cubic, quintic = NEWTON_SCHULZ
    return torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)


def _newton_schulz_factor(gram: Tensor, rounds: int) -> Tensor:
    """What all rounds together multiply a matrix by, a polynomial of its Gram matrix.

    The long axis is touched twice in place of twice a round. Rounding is that of the Gram matrix,
    1e-4 of the result in float32 where rounds on the matrix itself have 1e-6.

    Args:
        gram: ``(rows, rows)``.
        rounds: how many.

    Returns:
        Tensor: ``(rows, rows)``.
    """
    linear = NEWTON_SCHULZ[0]
    factor = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)

    for rounds_left in reversed(range(rounds)):
        odd = _odd_part(gram)
        factor = torch.addmm(factor, odd, factor, beta=linear)
        if rounds_left:
            half = torch.addmm(gram, odd, gram, beta=linear)
            gram = torch.addmm(half, half, odd, beta=linear)

    return factor


def inverse_root(matrix: Tensor, order: int) -> Tensor:
    """``matrix^{-1/order}`` of a symmetric positive matrix ``(n, n)``."""
    values, vectors = eigh(matrix)
    least = torch.finfo(matrix.dtype).eps * values.amax()  # rounding may leave small ones negative
    return (vectors * torch.maximum(values, least) ** (-1 / order)) @ vectors.mT


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix; the identity's where it is not finite.

    LAPACK refuses a whole batch for one matrix that is not finite, and the chains that have not
    diverged must go on. Scaled to entries of at most one, since large ones overflow on the way; in
    float64, since in float32 it does not converge for some matrices of low rank, such as those of
    an embedding most of whose rows have no gradient.

    Args:
        matrix: ``(n, n)``.

    Returns:
        tuple[Tensor, Tensor]: ``(n,)``, ascending, and ``(n, n)``, a column for each.
    """
    size = matrix.abs().amax()
    finite = size.isfinite()
    scale = torch.where(finite & (size > 0), size, 1.0)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    safe = torch.where(finite, matrix / scale, identity)

    values, vectors = torch.linalg.eigh(safe.double())
    return values.to(matrix) * scale, vectors.to(matrix)


def eigenvectors(matrix: Tensor) -> Tensor:
    """Those of a symmetric ``(n, n)``, the largest eigenvalue first, entries of positive sum."""
    vectors = eigh(matrix)[1].flip(-1)
    return vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)

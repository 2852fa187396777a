"""What tells two data sets of the same name apart: a hash of every number in them."""

import hashlib
from collections.abc import Iterable

from torch import Tensor


def fingerprint_of(tensors: Iterable[Tensor]) -> str:
    """First 16 hex digits of the SHA-256 of the tensors' bytes, one after another."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

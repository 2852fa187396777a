"""A promise of the caller: nothing that runs inside will be differentiated."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_promised: ContextVar[bool] = ContextVar("forward_only", default=False)


@contextmanager
def forward_only(promised: bool = True) -> Iterator[None]:
    """Let what runs inside use kernels that have no gradient.

    It is read while a step is traced: one traced inside may be called outside, too.

    Args:
        promised: False changes nothing.

    >>> with forward_only():
    ...     print(is_forward_only())
    True
    >>> is_forward_only()
    False
    """
    before = _promised.set(promised or _promised.get())
    try:
        yield
    finally:
        _promised.reset(before)


def is_forward_only() -> bool:
    """Whether the caller has promised that nothing will be differentiated."""
    return _promised.get()

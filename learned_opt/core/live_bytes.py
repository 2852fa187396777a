"""How many bytes of tensors are alive at once while operations run."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is active.

    Views share their storage and count once. What was there before does not count, nor do buffers
    inside an operation.

    Attributes:
        peak: most bytes alive at once.

    >>> import torch
    >>> with LiveBytes() as memory:
    ...     total = torch.zeros(10).add(1).sum()
    >>> memory.peak  # two vectors of ten numbers
    80
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._sizes: dict[int, int] = {}

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._count(leaf, is_new=False)

        result = func(*args, **(kwargs or {}))

        for leaf in tree_leaves(result):
            self._count(leaf, is_new=True)
        self.peak = max(self.peak, self._alive)
        return result

    def _count(self, leaf: Any, is_new: bool) -> None:
        if not isinstance(leaf, Tensor):
            return

        # views share a storage, which lives until the last of them is gone
        storage = leaf.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if is_new else 0
            self._alive += self._sizes[key]
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._alive -= self._sizes.pop(key)

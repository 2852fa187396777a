"""Reads what flax writes with ``flax.serialization``: nested maps of arrays, in msgpack.

Nothing but these is read, and nothing is executed. Files are data of strangers: no length that a
file states is believed before that many bytes are seen to be there.

Source: github.com/msgpack/msgpack/blob/master/spec.md, and flax's ``serialization.py``, where an
array is extension 1 around the list (shape, dtype, bytes in C order).
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

MAX_BYTES = 2**26  # of a file
MAX_DEPTH = 16  # of maps in maps
MAX_AXES = 16
ARRAY = 1  # code of the extension
DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}

Keys = tuple[str, ...]  # of maps, from the outermost on


def read_arrays(path: Path) -> dict[Keys, Tensor]:
    r"""The arrays of a file by the path of their keys; whole numbers and texts are left out.

    Args:
        path: the file.

    Raises:
        ValueError: it is too large, or no such file; names the byte where it stops making sense.

    >>> import tempfile
    >>> content = b"\x81\xa1w\xc7\x15\x01\x93\x91\x02\xa7float32\xc4\x08" + bytes(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "theta.state")
    ...     _ = file.write_bytes(content)
    ...     read_arrays(file)
    {('w',): tensor([0., 0.])}
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} must have at most {MAX_BYTES} bytes, it has {size}.")
    reader = _Reader(path.read_bytes(), str(path))
    reader.check_begins_map()
    whole = reader.item(0)
    if reader.position != size:
        reader.refuse(reader.position, "must be the end of the file, there are more")
    return _flat(whole, ())


class _Reader:
    """Items one behind the other.

    Args:
        data: of the whole file.
        source: the file, for messages.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source
        self.position = 0

    def refuse(self, position: int, rule: str) -> NoReturn:
        """Say where the file stops making sense.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self.source} is no flax msgpack file: byte {position} of {len(self.data)} {rule}."
        )

    def check_begins_map(self) -> None:
        """Check that the first item is a map, which that of a foreign file hardly is."""
        kind = self.data[0] if self.data else 0
        if not (0x80 <= kind < 0x90 or kind in (0xDE, 0xDF)):
            self.refuse(0, f"must begin a map of arrays, got {kind:#04x}")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start = self.position
        left = len(self.data) - start
        if count > left:
            self.refuse(start, f"must begin {count} more bytes, the file ends after {left}")
        self.position += count
        return self.data[start : self.position]

    def number(self, count: int) -> int:
        """A whole number of so many bytes, the most significant first."""
        return int.from_bytes(self.take(count), "big")

    def item(self, depth: int) -> Any:
        """The next item: a number, a text, bytes, a list, a map or an array."""
        start = self.position
        kind = self.number(1)
        if depth > MAX_DEPTH:
            self.refuse(start, f"must lie in at most {MAX_DEPTH} maps and lists")

        if kind < 0x80:
            return kind
        if kind < 0x90:
            return self._map(kind & 0x0F, depth)
        if kind < 0xA0:
            return self._list(kind & 0x0F, depth)
        if kind < 0xC0:
            return self._text(kind & 0x1F)
        if kind in LENGTHS:
            read, width = LENGTHS[kind]
            return read(self, self.number(width), depth)
        if 0xCC <= kind <= 0xCF:
            return self.number(2 ** (kind - 0xCC))
        if 0xD4 <= kind <= 0xD8:
            return self._array(2 ** (kind - 0xD4), depth)
        rule = f"must begin an array, a map, a list, a text or a whole number, got {kind:#04x}"
        return self.refuse(start, rule)

    def _text(self, count: int, depth: int = 0) -> str:
        del depth
        start = self.position
        try:
            return self.take(count).decode()
        except UnicodeDecodeError:
            self.refuse(start, "must begin a text in UTF-8")

    def _bytes(self, count: int, depth: int = 0) -> bytes:
        del depth
        return self.take(count)

    def _list(self, count: int, depth: int) -> list[Any]:
        self._check_room(count)
        return [self.item(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        self._check_room(2 * count)
        members: dict[str, Any] = {}
        for _ in range(count):
            start = self.position
            key = self.item(depth + 1)
            if not isinstance(key, str) or key in members:
                self.refuse(start, "must begin a key, a text that this map does not have yet")
            members[key] = self.item(depth + 1)
        return members

    def _check_room(self, count: int) -> None:
        """Check that so many items may follow: each takes a byte at least."""
        left = len(self.data) - self.position
        if count > left:
            self.refuse(self.position, f"must begin {count} items, only {left} bytes follow")

    def _array(self, count: int, depth: int) -> Tensor:
        start = self.position
        code = self.number(1)
        if code != ARRAY:
            self.refuse(start, f"must be {ARRAY}, the code of an array, got {code}")
        self._check_room(count)

        end = self.position + count
        content = self.item(depth + 1)
        if self.position != end:
            self.refuse(self.position, f"must be the end of an array, which is byte {end}")
        is_array = isinstance(content, list) and len(content) == 3
        if not is_array or not isinstance(content[2], bytes):
            self.refuse(start, "must begin an array: shape, type and bytes")
        return self._tensor(start, *content)

    def _tensor(self, start: int, shape: Any, name: Any, raw: bytes) -> Tensor:
        is_shape = isinstance(shape, list) and len(shape) <= MAX_AXES
        if not is_shape or not all(isinstance(size, int) and size > 0 for size in shape):
            self.refuse(start, f"must begin an array of at most {MAX_AXES} axes, none empty")
        dtype = DTYPES.get(name) if isinstance(name, str) else None
        if dtype is None:
            self.refuse(start, f"must begin an array of {', '.join(DTYPES)}, got {name!r}")

        if math.prod(shape) * dtype.itemsize != len(raw):
            self.refuse(start, f"must begin an array of shape {shape}, it has {len(raw)} bytes")
        return _from_bytes(raw, dtype).reshape(shape)


# type byte -> what follows a length, and of how many bytes the length is
LENGTHS: dict[int, tuple[Callable[..., Any], int]] = {
    0xC4: (_Reader._bytes, 1),
    0xC5: (_Reader._bytes, 2),
    0xC6: (_Reader._bytes, 4),
    0xC7: (_Reader._array, 1),
    0xC8: (_Reader._array, 2),
    0xC9: (_Reader._array, 4),
    0xD9: (_Reader._text, 1),
    0xDA: (_Reader._text, 2),
    0xDB: (_Reader._text, 4),
    0xDC: (_Reader._list, 2),
    0xDD: (_Reader._list, 4),
    0xDE: (_Reader._map, 2),
    0xDF: (_Reader._map, 4),
}


def _from_bytes(raw: bytes, dtype: torch.dtype) -> Tensor:
    numbers = torch.frombuffer(bytearray(raw), dtype=dtype)
    if sys.byteorder == "big":  # in the file the least significant byte comes first
        return numbers.view(torch.uint8).reshape(-1, dtype.itemsize).flip(1).flatten().view(dtype)
    return numbers


def _flat(branch: Any, prefix: Sequence[str]) -> dict[Keys, Tensor]:
    if isinstance(branch, Tensor):
        return {tuple(prefix): branch}
    arrays: dict[Keys, Tensor] = {}
    if isinstance(branch, dict):
        for key, below in branch.items():
            arrays |= _flat(below, (*prefix, key))
    return arrays

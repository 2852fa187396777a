"""What ``flax.serialization.msgpack_serialize`` writes, for the kinds that thetas hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def flax_bytes(value: Any) -> bytes:
    """Maps, texts, whole numbers and arrays in msgpack.

    >>> flax_bytes({"step": 3}).hex()
    '81a47374657003'
    """
    if isinstance(value, Mapping):
        assert len(value) < 2**16
        head = bytes([0x80 + len(value)]) if len(value) < 16 else b"\xde" + _length(len(value), 2)
        return head + b"".join(flax_bytes(key) + flax_bytes(part) for key, part in value.items())
    if isinstance(value, str):
        raw = value.encode()
        return (bytes([0xA0 + len(raw)]) if len(raw) < 32 else b"\xd9" + _length(len(raw), 1)) + raw
    if isinstance(value, bytes):
        return b"\xc6" + _length(len(value), 4) + value
    if isinstance(value, int):
        return bytes([value]) if value < 128 else b"\xce" + _length(value, 4)
    if isinstance(value, list | tuple):
        assert len(value) < 16
        return bytes([0x90 + len(value)]) + b"".join(map(flax_bytes, value))

    array = np.asarray(value)
    content = flax_bytes([list(array.shape), array.dtype.name, array.tobytes()])
    return b"\xc9" + _length(len(content), 4) + b"\x01" + content


def _length(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big")

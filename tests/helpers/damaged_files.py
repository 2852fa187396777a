"""Files as accidents and strangers leave them: cut, swapped, with fields of another type."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

# what a field may hold instead; NaN and the like are what Python writes into JSON by itself
FIELDS = [
    *(None, True, 0, -1, 1, 2.5, 1e300, 10**30, float("nan"), float("inf"), "", "abc", "x" * 10**5),
    *([], [[]], [0], {}, {"a": 1}, [None] * 1000, "${oc.env:HOME}", "${..seed}", "ü\u0000"),
    *({"_target_": "os.system", "command": "touch canary"}, {"real": 1, "imag": 1}),
    *(
        {"_target_": "builtins.exec", "_args_": ["open('canary', 'w')"]},
        {"_target_": "torch.nn.LSTM"},
    ),
    "${oc.create:{_target_:os.system,command:'touch canary'}}",
]


def any_path(value: Any, source: random.Random) -> list[Any]:
    """The keys and indices that lead to a random part, which is not the whole."""
    path = []
    while isinstance(value, dict | list) and value:
        key = source.choice(list(value) if isinstance(value, dict) else range(len(value)))
        path.append(key)
        value = value[key]
        if source.random() < 0.25:
            break
    return path


def damage_fields(value: Any, source: random.Random) -> str:
    """Change a random part of plain data in place; says what was done."""
    path = any_path(value, source)
    if not path:
        return "nothing to change"
    holder = value
    for key in path[:-1]:
        holder = holder[key]

    last = path[-1]
    kind = source.choice(["replace", "replace", "replace", "drop", "nest", "lengthen", "rename"])
    if kind == "replace":
        holder[last] = source.choice(FIELDS)
    elif kind == "drop":
        del holder[last]
    elif kind == "nest":
        holder[last] = source.choice([[holder[last]], {"a": holder[last]}, deep(holder[last])])
    elif kind == "lengthen":
        holder[last] = lengthened(holder[last])
    elif isinstance(holder, dict):
        holder[source.choice(["new", "", "_target_", "ü"])] = holder.pop(last)
    else:
        holder.append(holder[last])
    return f"{kind} {'.'.join(map(str, path))}"


def deep(value: Any) -> Any:
    """A value in 500 lists."""
    for _ in range(500):
        value = [value]
    return value


def lengthened(value: Any) -> Any:
    """A value with more in it."""
    if isinstance(value, str | list):
        return value * 100
    if isinstance(value, dict):
        return value | {f"new{i}": i for i in range(100)}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value] * 100
    return value * 10**6


def damage_bytes(content: bytes, source: random.Random) -> tuple[bytes, str]:
    """Cut, flip, repeat or replace bytes; says what was done."""
    kind = source.choice(["cut", "flip", "flip", "append", "empty", "noise", "zeros", "double"])
    position = source.randrange(max(1, len(content)))
    if kind == "cut":
        return content[:position], f"cut at {position}"
    if kind == "flip":
        return flipped(content, position, source), f"flip at {position}"
    if kind == "append":
        return content + source.randbytes(20), "append"
    if kind == "empty":
        return b"", "empty"
    if kind == "noise":
        return source.randbytes(200), "noise"
    if kind == "zeros":
        return bytes(len(content)), "zeros"
    return content * 2, "double"


def flipped(content: bytes, position: int, source: random.Random) -> bytes:
    """The bytes with another one at a position."""
    if not content:
        return content
    changed = bytearray(content)
    changed[position] ^= source.randrange(1, 256)
    return bytes(changed)


def damage_file(path: Path, source: random.Random) -> str:
    """Damage a file that is there; says what was done."""
    kind = source.random()
    if kind < 0.1:
        path.unlink()
        return f"{path.name}: removed"
    if kind < 0.2:
        path.unlink()
        path.mkdir()
        return f"{path.name}: a folder"
    if path.suffix == ".json" and kind < 0.8:
        content = json.loads(path.read_text())
        said = damage_fields(content, source)
        path.write_text(json.dumps(content))
        return f"{path.name}: {said}"
    content, said = damage_bytes(path.read_bytes(), source)
    path.write_bytes(content)
    return f"{path.name}: {said}"


def copied(folder: Path, to: Path) -> None:
    """A copy of a file or of a folder."""
    if folder.is_dir():
        shutil.copytree(folder, to, symlinks=True)
    else:
        shutil.copy(folder, to)

"""The settings of a run as the flat names and values that experiment trackers take."""

from collections.abc import Mapping
from typing import Any

Value = bool | int | float | str


def flat(settings: Mapping[str, Any]) -> dict[str, Value]:
    """Names with slashes -> values; a list is a text, and so is null.

    >>> flat({"seed": 0, "task": {"name": "mlp", "sizes": [1, 8, 8], "limit": None}})
    {'seed': 0, 'task/name': 'mlp', 'task/sizes': '[1, 8, 8]', 'task/limit': 'null'}
    """
    values: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            for below, leaf in flat(value).items():
                values[f"{name}/{below}"] = leaf
        elif value is None:
            values[name] = "null"
        else:
            values[name] = value if isinstance(value, Value) else str(value)
    return values

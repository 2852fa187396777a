"""The few questions that are asked of a table of rows, with types that say what comes back."""

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd


def select(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns have these values.

    >>> frame = pd.DataFrame({"task": ["a", "b"], "loss": [1.0, 2.0]})
    >>> select(frame, task="b")["loss"].tolist()
    [2.0]
    """
    for column, value in values.items():
        frame = cast(pd.DataFrame, frame.loc[frame[column] == value])
    return frame


def groups(
    frame: pd.DataFrame, columns: Sequence[str]
) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """(values of the columns, rows) for each combination, in the order of the rows."""
    grouped: Any = frame.groupby(list(columns), sort=False)
    return list(grouped)


def distinct(frame: pd.DataFrame, column: str) -> list[Any]:
    """The values of a column, each once, in the order of the rows."""
    return list(dict.fromkeys(frame[column].tolist()))

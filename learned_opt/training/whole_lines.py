"""Text files that are appended to while a run may be killed."""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

from learned_opt.core.errors import RunError


def whole_lines(path: Path) -> list[str]:
    r"""The lines of a file, each with its end; a last line that a kill has cut is none of them.

    Args:
        path: the file; one that does not exist has no lines.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
    >>> _ = path.write_text("step,loss\n0,2.5\n1,")
    >>> whole_lines(path)
    ['step,loss\n', '0,2.5\n']
    """
    if not path.is_file():
        return []

    lines = path.read_text("utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines


def read_rows(path: Path, step: str, texts: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows of a table with commas, column -> cell; empty where there is none.

    Args:
        path: the file, whose first line names the columns.
        step: the column of numbers by which a run that goes on keeps rows.
        texts: the columns that hold text; a cell of any other is a number or empty.

    Raises:
        RunError: a row does not fit the columns, has no step, or text where a number belongs.
    """
    try:
        rows = list(csv.DictReader(whole_lines(path)))
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged: {error}; move it away to go on without it.") from error

    for i, row in enumerate(rows):
        if fault := _fault(row, step, texts):
            raise RunError(
                f"{path} is damaged: row {i + 1} {fault}; move it away to go on without it."
            )
    return rows


def _fault(row: Mapping[str, str], step: str, texts: Collection[str]) -> str:
    """What is wrong with a row; empty where nothing is."""
    # the reader marks surplus cells with the key None, and missing ones with the value None
    is_whole = None not in row and None not in row.values()
    if not is_whole or not row.get(step, "").isdecimal():
        return "does not fit its columns"

    for name, cell in row.items():
        if name not in texts and cell and not _is_number(cell):
            return f"holds {cell[:40]!r} in the column {name}, which must be a number"
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

"""Text files that are appended to while a run may be killed."""

from pathlib import Path


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

    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines

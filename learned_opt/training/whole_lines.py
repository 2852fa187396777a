"""Text files that are appended to while a run may be killed."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, each with its end; a last line that a kill has cut is none of them.

    Args:
        path: the file; one that does not exist has no lines.
    """
    if not path.is_file():
        return []

    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return lines

"""One rule for the names of tasks, optimizers and runs, which tables, files, pages and plots show.

A name goes into file names, the markup of terminals, formulas of plots, columns of CSV and keys of
W&B; each of them has a meaning for some characters. What is allowed means itself everywhere.
"""

import re

LONGEST = 60  # bytes in UTF-8: file names have 255, and hold two names
# letters and digits of any script first; a name that begins with a dash would be a flag
NAME = re.compile(r"[^\W_][\w .+=()-]*")


def check_name(key: str, name: object, *, is_path: bool = False) -> None:
    """Refuse what no table, file name or plot could show.

    Args:
        key: where the name comes from.
        name: the name.
        is_path: whether it may have parts with a slash between them, each a name.

    Raises:
        ValueError: names the key, the rule and the name.

    >>> check_name("task.name", "[/foo]")
    Traceback (most recent call last):
    ValueError: task.name must be letters, digits, spaces or any of _.+-=(), got '[/foo]'.
    """
    parts = str(name).split("/") if is_path else [str(name)]
    if not all(NAME.fullmatch(part) and part == part.strip() for part in parts):
        raise ValueError(
            f"{key} must be letters, digits, spaces or any of _.+-=(), got {_shown(name)}."
        )
    longest = max(len(part.encode()) for part in parts)
    if longest > LONGEST:
        raise ValueError(
            f"{key} must have at most {LONGEST} letters, got {longest}: {_shown(name)}."
        )


def _shown(name: object) -> str:
    text = str(name)
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")

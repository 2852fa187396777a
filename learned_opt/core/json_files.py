"""JSON that somebody else may have written, or half written."""

import json
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 64 * 2**20  # bytes; what we write ourselves has a hundredth of that


def read_json(path: Path, *, strict: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        strict: whether NaN and Infinity, which Python writes as well, are refused.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON, or too large or too deep to be one of ours; says where.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "job.json"
    >>> _ = path.write_text('{"value": NaN}')
    >>> read_json(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: .../job.json is damaged: it holds NaN, which is not JSON.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        constant = _refuse if strict else float
        return json.loads(path.read_text("utf-8"), parse_constant=constant)
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: it is nested too deep.") from error
    except ValueError as error:  # of JSON and of UTF-8 as well
        raise ValueError(f"{path} is damaged: {error}.") from error


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is not JSON")

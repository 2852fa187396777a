"""Files that may come from anywhere, read as plain data: bounded before they are parsed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MAX_JSON_BYTES = 2**24
MAX_YAML_BYTES = 2**20  # its parser is slow
MAX_DEPTH = 50  # of lists and dicts inside each other; parsers call themselves at each level

# a whole string, whose brackets do not count, or one bracket; a cut string ends with the text
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def read_json(path: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        ValueError: the file is too large, nested too deeply, or not valid JSON.
    """
    text = _text(path, MAX_JSON_BYTES, "JSON")
    depth = 0
    for match in _TOKEN.finditer(text):
        if match[0] in "[{":
            depth += 1
            _check_depth(depth, path)
        elif match[0] in "]}":
            depth -= 1

    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error


def read_yaml(path: Path) -> Any:
    """The value that a YAML file of plain values holds.

    Raises:
        ValueError: the file is too large, nested too deeply, refers to parts of itself, or is not
            valid YAML.
    """
    text = _text(path, MAX_YAML_BYTES, "YAML")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                # a few lines of them would unfold to any size
                raise ValueError(f"{path} repeats parts of itself (*{event.anchor}), but may not.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                _check_depth(depth, path)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML: {reason}.") from error


def refuse_references(value: Any, where: str) -> None:
    """Check that no text in a value refers to another value, as OmegaConf would resolve it.

    Args:
        value: plain data.
        where: its path, for the message.

    Raises:
        ValueError: a text holds ``${``, which resolvers turn into calls.

    >>> refuse_references({"lr": "${oc.env:HOME}"}, "rule")
    Traceback (most recent call last):
    ValueError: rule.lr must be a plain value, got '${oc.env:HOME}'.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            refuse_references(key, where)
            refuse_references(part, f"{where}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            refuse_references(part, f"{where}[{i}]")
    elif isinstance(value, str) and "${" in value:
        raise ValueError(f"{where} must be a plain value, got {shown(value)}.")


def shown(value: Any) -> str:
    """A value as a message shows it, cut where it is long.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _text(path: Path, max_bytes: int, kind: str) -> str:
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} must have at most {max_bytes} bytes, it has {size}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid {kind}: {error}.") from error


def _check_depth(depth: int, path: Path) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} must be nested at most {MAX_DEPTH} deep, it is deeper.")

"""The parts that ``theta.json`` may have: their types and ranges, with a sentence for each."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import comb, isnan, perm, prod
from typing import Any

from learned_opt.core.names import check_name
from learned_opt.deploy.plain_data import refuse_references, shown
from learned_opt.symmetry.spec import PermutationSpec

FORMAT = 2  # version of the pair of files; raised when an older reader would misread it
MAX_NAME = 200  # letters of a name
MAX_AXES = 16  # of a tensor
MAX_READINGS = 20_000  # ways in which an equivariant layer reads the tensors of one spec
MAX_SIZE = 2**40  # of an axis

# part -> whether each of its members must be a dict as well
DICTS = {
    "tasks": True,
    "task_configs": True,
    "specs": True,
    "draws": False,
    "provenance": False,
    "evaluation": False,
    "started_from": False,
    "trained_by": False,
}
DATA_NAMES = ("data", "fingerprint")  # of a task, which guards compare
SPEC_PARTS = {"axes", "fixed", "views", "reasons", "fixed_sizes", "cuts"}


def checked(metadata: Any, source: str) -> dict[str, Any]:
    """The metadata of a theta in the layout of today.

    Args:
        metadata: the content of a JSON file.
        source: the file, for messages.

    Raises:
        ValueError: it is no description of a learned optimizer, or of another format; names the
            part, the rule and the value.
    """
    if not isinstance(metadata, dict):
        kind = type(metadata).__name__
        raise ValueError(f"{source} does not describe a learned optimizer, it holds a {kind}.")
    metadata = _current_format(metadata, source)

    _check_record(metadata, source)
    _check_warnings(metadata.get("warnings", []), f"warnings in {source}")
    if "optimizer_name" in metadata:
        _check_name(metadata["optimizer_name"], f"optimizer_name in {source}")
        check_name(f"optimizer_name in {source}", metadata["optimizer_name"])
    if "meta_optimizer" in metadata:
        node = metadata["meta_optimizer"]
        if not isinstance(node, dict):
            raise ValueError(
                f"meta_optimizer in {source} must be the config of a meta-optimizer, "
                f"got {shown(node)}."
            )
        refuse_references(node, f"meta_optimizer in {source}")
        _refuse_nan(node, f"meta_optimizer in {source}")

    for name, spec in metadata.get("specs", {}).items():
        check_spec(spec, f"the spec of {name!r} in {source}")
    return metadata


def require(metadata: Mapping[str, Any], parts: tuple[str, ...], source: str) -> None:
    """Check that metadata has some parts, which hold something.

    Raises:
        ValueError: one is missing, or empty where it must not be.
    """
    for part in parts:
        if part not in metadata:
            raise ValueError(f"{source} does not describe a learned optimizer: it lacks {part}.")
    if "specs" in parts and not metadata["specs"]:
        raise ValueError(f"{source} does not describe a learned optimizer: specs holds none.")


def check_spec(spec: Mapping[str, Any], where: str) -> None:
    """Check the types and sizes of a permutation spec in JSON, and that it is one.

    Raises:
        ValueError: names the part, the rule and the value.
    """
    if unknown := sorted(set(spec) - SPEC_PARTS):
        raise ValueError(f"{where} has parts that are not known: {shown(unknown)}.")
    if "axes" not in spec:
        raise ValueError(f"{where} lacks axes.")

    for part in ("axes", "views", "reasons", "fixed_sizes", "cuts"):
        if not isinstance(spec.get(part, {}), Mapping):
            raise ValueError(f"{part} of {where} must be a dict, got {shown(spec[part])}.")
    if not _is_list_of(spec.get("fixed", []), str):
        raise ValueError(f"fixed of {where} must be a list of names, got {shown(spec['fixed'])}.")

    _check_axes(spec["axes"], where)
    for parameter, factors in spec.get("views", {}).items():
        _check_view(factors, f"the view of {parameter!r} of {where}")
    for parameter, cut in spec.get("cuts", {}).items():
        _check_cut(cut, f"the cut of {parameter!r} of {where}")
    for name, size in spec.get("fixed_sizes", {}).items():
        _check_size(size, f"fixed_sizes of {name!r} of {where}")

    try:
        PermutationSpec(**spec)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{where} is none: {error}") from error


@cache
def num_readings(count: int) -> int:
    """How many ways there are to read axes of one name: group them, keep some, in any order.

    >>> [num_readings(count) for count in (0, 1, 2, 10)]
    [1, 2, 7, 277913552]
    """
    total = 0
    for blocks in range(count + 1):
        total += _num_groupings(count, blocks) * sum(perm(blocks, k) for k in range(blocks + 1))
    return total


@cache
def _num_groupings(count: int, blocks: int) -> int:
    """Stirling number of the second kind."""
    if blocks == 0:
        return int(count == 0)
    rest = range(count)
    return sum(comb(count - 1, k) * _num_groupings(k, blocks - 1) for k in rest)


def _current_format(metadata: dict[str, Any], source: str) -> dict[str, Any]:
    version = metadata.get("format")
    if version == FORMAT and not isinstance(version, bool | float):
        return metadata
    if version != 1 or isinstance(version, bool | float):
        raise ValueError(f"{source} has format {shown(version)}, this version reads {FORMAT}.")

    # the first format had one task
    require(metadata, ("task", "spec"), source)
    task = metadata["task"]
    _check_dict(task, False, f"task in {source}")
    require(task, ("task",), source)
    name = task["task"]
    _check_name(name, f"the name of the task in {source}")
    return {**metadata, "specs": {name: metadata["spec"]}, "tasks": {name: task}}


def _check_record(record: Mapping[str, Any], source: str) -> None:
    """Check what a theta, or one that it started from, says of its meta-training."""
    for part, of_dicts in DICTS.items():
        if part in record:
            _check_dict(record[part], of_dicts, f"{part} in {source}")

    for name, facts in record.get("tasks", {}).items():
        for key in DATA_NAMES:
            if not isinstance(facts.get(key, ""), str):
                raise ValueError(
                    f"{key} of task {name!r} in {source} must be a text, got {shown(facts[key])}."
                )

    before = record.get("started_from")
    if before:
        where = f"started_from in {source}"
        require(before, ("name", "tasks"), where)
        _check_name(before["name"], f"name of {where}")
        _check_record(before, where)


def _check_warnings(warnings: Any, where: str) -> None:
    # earlier versions kept a list for each task
    lists = warnings.values() if isinstance(warnings, dict) else [warnings]
    if not all(_is_list_of(texts, str) for texts in lists):
        raise ValueError(f"{where} must be a list of texts, got {shown(warnings)}.")


def _check_dict(value: Any, of_dicts: bool, where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a dict, got {shown(value)}.")
    if not of_dicts:
        return
    for name, member in value.items():
        if not isinstance(member, dict):
            raise ValueError(f"{name!r} of {where} must be a dict, got {shown(member)}.")


def _check_name(value: Any, where: str) -> None:
    """A name goes into tables, and into a config, where ``${`` would be resolved."""
    is_name = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
    if not is_name or "${" in value:
        raise ValueError(
            f"{where} must be a text of 1 to {MAX_NAME} printable letters without ${{, "
            f"got {shown(value)}."
        )


def _check_axes(axes: Mapping[str, Any], where: str) -> None:
    if not axes:
        raise ValueError(f"axes of {where} must hold at least one tensor, got none.")

    total = 0
    for parameter, names in axes.items():
        if not _is_list_of(names, str):
            raise ValueError(
                f"axes of {parameter!r} of {where} must be a list of names, got {shown(names)}."
            )
        if len(names) > MAX_AXES:
            raise ValueError(
                f"{parameter!r} of {where} must have at most {MAX_AXES} axes, got {len(names)}."
            )
        # a layer takes memory for each of them, before a number of theta is read
        total += prod(map(num_readings, Counter(names).values()))
        if total > MAX_READINGS:
            raise ValueError(
                f"{where} must be readable in at most {MAX_READINGS} ways, got more by tensor "
                f"{parameter!r}, whose axes are {shown(names)}."
            )


def _check_view(factors: Any, where: str) -> None:
    if not isinstance(factors, list) or not all(isinstance(part, list) for part in factors):
        raise ValueError(f"{where} must be a list of lists of sizes, got {shown(factors)}.")
    for part in factors:
        for size in part:
            _check_size(size, where)


def _check_cut(cut: Any, where: str) -> None:
    is_pair = isinstance(cut, list) and len(cut) == 2 and isinstance(cut[1], list)
    if not is_pair:
        raise ValueError(f"{where} must be an axis and a list of lengths, got {shown(cut)}.")
    for size in (cut[0], *cut[1]):
        _check_size(size, where)


def _check_size(size: Any, where: str) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{where} must be a whole number from 0 to {MAX_SIZE}, got {shown(size)}.")


def _refuse_nan(value: Any, where: str) -> None:
    """Infinity may stand for a limit that is off; NaN stands for nothing."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            _refuse_nan(part, f"{where}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            _refuse_nan(part, f"{where}[{i}]")
    elif isinstance(value, float) and isnan(value):
        raise ValueError(f"{where} must be a number, got nan.")


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(part, kind) for part in value)

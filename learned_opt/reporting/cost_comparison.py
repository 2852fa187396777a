"""Two tables of costs beside each other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learned_opt.core.json_files import read_json
from learned_opt.reporting.cost_table import FORMAT, Key
from learned_opt.runtime import machine

HEADINGS = ("task", "optimizer", "mode", "then", "now", "speed", "memory", "first call")
FIGURES = ("steps_per_s", "peak_bytes_per_chain", "first_call_s")
UNMEASURED = ("peak_bytes_per_chain", "first_call_s")  # those that may be null
WORK = ("num_theta", "num_chains", "unroll_length")  # rows of the same work have these alike
RULE = "compare must be the bench.json of an earlier run"
Row = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """The ``bench.json`` of an earlier run.

    Raises:
        ValueError: there is none, or it is damaged, or it is something else.
    """
    if not path.is_file():
        raise ValueError(f"{RULE}, but there is no file {path}.")

    try:
        bench = read_json(path)
    except ValueError as error:
        raise ValueError(f"{RULE}, but {path} is damaged or foreign.") from error

    if isinstance(bench, dict) and bench.get("format") != FORMAT:
        raise ValueError(f"{RULE}, but {path} is of another format.")
    if fault := _fault(bench):
        raise ValueError(f"{RULE}, but {path} is damaged or foreign: {fault}.")
    return bench


def _fault(bench: Any) -> str:
    """What is wrong with the content of a ``bench.json``; empty where nothing is."""
    machine_facts = bench.get("machine") if isinstance(bench, dict) else None
    rows = bench.get("rows") if isinstance(bench, dict) else None
    if not isinstance(machine_facts, dict) or not isinstance(rows, list):
        return "it must hold machine and rows"

    # warnings about the machines need these
    for key in ("load", "cores"):
        if not _is_number(machine_facts.get(key)):
            return f"machine.{key} must be a number"

    keys = set()
    for i, row in enumerate(rows):
        fault = _fault_of_row(row)
        if not fault and _key(row) in keys:
            fault = "it is there twice"
        if fault:
            return f"row {i}: {fault}"
        keys.add(_key(row))

    return ""


def _fault_of_row(row: Any) -> str:
    if not isinstance(row, dict):
        return "it must be an object"

    for key in Key._fields:
        if not isinstance(row.get(key), str):
            return f"{key} must be a text"

    for key in (*FIGURES, *WORK):
        # what was not measured is null, but for the speed itself
        is_missing = key in row and row[key] is None and key in UNMEASURED
        is_positive = _is_number(row.get(key)) and row[key] > 0
        if not is_missing and not is_positive:
            return f"{key} must be a positive number, it is {row.get(key)!r:.40}"

    return ""


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < math.inf


def compare(
    new: Mapping[str, Any], old: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Ratios of the rows that two benches share.

    A speed above 1 is faster in the new one, a memory below 1 is less.

    Args:
        new: contents of a ``bench.json``.
        old: those of the earlier one.

    Returns:
        tuple: rows under ``HEADINGS``, and sentences that a reader must know.
    """
    earlier = {_key(row): row for row in old["rows"]}
    later = {_key(row): row for row in new["rows"]}
    shared = [key for key in later if key in earlier]
    rows = [_row(later[key], earlier[key]) for key in shared]

    sentences = [f"then: {_line(old['machine'])}", f"now: {_line(new['machine'])}"]
    sentences += _warnings_of_machines(new["machine"], old["machine"])

    others = []
    for key in shared:
        if not _is_same_work(later[key], earlier[key]):
            others.append(str(key))

    if others:
        sentences.append(
            "warning: theta, chains or unroll differ, so the work is not the same: "
            f"{', '.join(others)}"
        )

    missing = [str(key) for key in earlier if key not in later]
    if missing:
        sentences.append(f"only in the earlier run: {', '.join(missing)}")

    return rows, sentences


def _warnings_of_machines(new: Row, old: Row) -> list[str]:
    """Sentences on machines that differ or were busy."""
    warnings = []
    if differing := machine.differences(new, old):
        warnings.append(
            f"warning: the machines differ ({', '.join(differing)}): ratios mix them with the code"
        )

    busy = []
    for when, facts in (("then", old), ("now", new)):
        if facts["load"] > facts["cores"]:
            busy.append(when)

    if busy:
        warnings.append(
            f"warning: more wanted to run than there are cores ({' and '.join(busy)}): "
            "speeds are too low"
        )

    return warnings


def _key(row: Row) -> Key:
    return Key(row["task"], row["optimizer"], row["mode"])


def _is_same_work(new: Row, old: Row) -> bool:
    return all(new[key] == old[key] for key in WORK)


def _row(new: Row, old: Row) -> dict[str, Any]:
    cells = [*_key(new), f"{old['steps_per_s']:,.0f}", f"{new['steps_per_s']:,.0f}"]
    for key in FIGURES:
        # what one of them has not measured has no ratio
        both = new[key] and old[key]
        cells.append(f"{new[key] / old[key]:.2f}" if both else "-")
    return dict(zip(HEADINGS, cells, strict=True))


def _line(facts: Row) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())

"""Two tables of costs beside each other."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learned_opt.reporting.cost_table import FORMAT, Key
from learned_opt.runtime import machine

HEADINGS = ("task", "optimizer", "mode", "then", "now", "speed", "memory", "first call")
FIGURES = ("steps_per_s", "peak_bytes_per_chain", "first_call_s")
WORK = (
    "num_theta",
    "num_chains",
    "unroll_length",
)  # what two rows must share to be of the same work


def read(path: Path) -> dict[str, Any]:
    """The ``bench.json`` of an earlier run.

    Raises:
        ValueError: there is none, or it is damaged, or it is something else.
    """
    if not path.is_file():
        raise ValueError(
            f"compare must be the bench.json of an earlier run, but there is no file {path}."
        )
    try:
        found = json.loads(path.read_text())
        whole = found["format"] == FORMAT and all(
            row[key] is None or row[key] > 0 for row in found["rows"] for key in (*FIGURES, *WORK)
        )
        _ = (
            [_key(row) for row in found["rows"]],
            [found["machine"][key] for key in ("load", "cores")],
        )
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"compare must be the bench.json of an earlier run, but {path} is damaged or foreign."
        ) from error
    if not whole:
        raise ValueError(
            f"compare must be the bench.json of an earlier run, but {path} is of another format."
        )
    return found


def compare(
    now: Mapping[str, Any], then: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Ratios of the rows that both have; a speed above 1 is faster now, a memory below 1 is less now.

    Args:
        now: contents of a ``bench.json``.
        then: those of the earlier one.

    Returns:
        tuple: rows under ``HEADINGS``, and sentences that a reader must know.
    """
    earlier = {_key(row): row for row in then["rows"]}
    pairs = [(row, earlier[_key(row)]) for row in now["rows"] if _key(row) in earlier]
    rows: list[dict[str, Any]] = [
        dict(zip(HEADINGS, _cells(new, old), strict=True)) for new, old in pairs
    ]
    sentences = [f"then: {_line(then['machine'])}", f"now: {_line(now['machine'])}"]
    if differing := machine.differences(now["machine"], then["machine"]):
        sentences.append(
            f"warning: the machines differ ({', '.join(differing)}): ratios mix them with the code"
        )
    if busy := [
        when
        for when, run in (("then", then), ("now", now))
        if run["machine"]["load"] > run["machine"]["cores"]
    ]:
        sentences.append(
            f"warning: more wanted to run than there are cores ({' and '.join(busy)}): speeds are too low"
        )
    if other := [str(_key(new)) for new, old in pairs if any(new[key] != old[key] for key in WORK)]:
        sentences.append(
            f"warning: theta, chains or unroll differ, so the work is not the same: {', '.join(other)}"
        )
    if missing := [str(key) for key in earlier if key not in {_key(row) for row in now["rows"]}]:
        sentences.append(f"only in the earlier run: {', '.join(missing)}")
    return rows, sentences


def _key(row: Mapping[str, Any]) -> Key:
    return Key(row["task"], row["optimizer"], row["mode"])


def _cells(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[str, ...]:
    rates = (f"{row['steps_per_s']:,.0f}" for row in (old, new))
    ratios = (f"{new[key] / old[key]:.2f}" if new[key] and old[key] else "-" for key in FIGURES)
    return (*_key(new), *rates, *ratios)


def _line(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())

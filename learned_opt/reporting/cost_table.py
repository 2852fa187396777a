"""The table of costs: one row for each optimizer and mode, and its files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.cost.timing import OuterStep, Times
from learned_opt.reporting.tables import markdown_table

FORMAT = "learned_opt.commands.bench 1"
NOTES = """\
Whole outer steps: draws, unroll, estimate; medians of interleaved rounds. steps/s: inner
steps of single chains per second; ms: one inner step of all chains; µs: its share of one
chain. KiB: peak of one outer step by the records of torch's allocator, per chain. first:
seconds of the first call, compilation included. / NAME: time over that of NAME in the same
mode. / floor: time over that of the bare work of the same shapes, measured in the same
rounds: the inner network's loss and gradient, the optimizer's matrix products, one read and
one write of what a chain carries."""


class Key(NamedTuple):
    """Which optimizer was timed, on which task and in which mode."""

    task: str
    optimizer: str
    mode: str  # eager | compiled | floor

    def __str__(self) -> str:
        """The key as words of a progress line."""
        return " ".join(self)


def make_row(
    key: Key,
    call: OuterStep,
    times: Mapping[Key, Times],
    peak: int | None,
    num_steps: int,
    references: Sequence[str],
) -> dict[str, Any]:
    """One row, as ``bench.json`` holds it.

    Args:
        key: of the row.
        call: was timed.
        times: of all keys; a reference or floor that was not timed leaves its ratio null.
        peak: measured bytes; None where they were not measured.
        num_steps: inner steps of one call of the floor.
        references: optimizers to compare with.
    """
    typical = times[key].typical
    assert typical is not None, "rows are of keys that have been timed"
    unroll = call.estimator.unroll_length
    ms = 1e3 * typical / unroll
    floor = _typical(times, key._replace(mode="floor"))

    row = {
        **key._asdict(),
        "num_theta": sum(leaf.numel() for leaf in call.theta.values()),
        "num_chains": call.num_chains,
        "unroll_length": unroll,
        "repeats": len(times[key].later),
        "steps_per_s": 1e3 * call.num_chains / ms,
        "ms_per_step": ms,
        "us_per_chain_step": 1e3 * ms / call.num_chains,
        "peak_bytes_per_chain": None if peak is None else peak / call.num_chains,
        "first_call_s": times[key].first,
        "floor_ms_per_step": None if floor is None else 1e3 * floor / num_steps,
        "times_floor": None if floor is None else ms * num_steps / (1e3 * floor),
    }
    for name in references:
        other = _typical(times, key._replace(optimizer=name))
        row[f"times_{name}"] = None if other is None else typical / other

    return row


def _typical(times: Mapping[Key, Times], key: Key) -> float | None:
    return times[key].typical if key in times else None


def headings(references: Sequence[str]) -> tuple[str, ...]:
    """Headings of the table, with a ratio for each reference."""
    ratios = [f"/ {name}" for name in references]
    return ("optimizer", "steps/s", "ms", "µs", "KiB", "first", *ratios, "/ floor")


def cells(row: Mapping[str, Any], references: Sequence[str]) -> tuple[str, ...]:
    """A row as text, in the order of the headings."""
    peak = row["peak_bytes_per_chain"]
    ratios = [_digits(row[f"times_{name}"]) for name in (*references, "floor")]

    return (
        row["optimizer"],
        _digits(row["steps_per_s"]),
        _digits(row["ms_per_step"]),
        _digits(row["us_per_chain_step"]),
        _digits(peak and peak / 1024),
        f"{row['first_call_s']:.1f}",
        *ratios,
    )


def by_title(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each task and mode, by the title above their table."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        work = f"{row['num_chains']} chains, unroll {row['unroll_length']}, {row['repeats']} rounds"
        title = f"{row['task']}, {row['mode']}: {work}"
        groups.setdefault(title, []).append(row)
    return groups


def _digits(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(
    folder: Path, rows: list[dict[str, Any]], references: Sequence[str], facts: dict[str, Any]
) -> None:
    """Write ``bench.json`` and ``bench.md``.

    Args:
        folder: run folder.
        rows: from ``make_row``.
        references: optimizers to compare with.
        facts: ``machine`` and what else a reader needs to repeat it.
    """
    write_json(folder / "bench.json", {"format": FORMAT, **facts, "rows": rows})

    sections = ["# Throughput"]
    for title, group in by_title(rows).items():
        table = markdown_table(headings(references), [cells(row, references) for row in group])
        sections.append(f"## {title}\n\n{table}")
    sections.append(NOTES)

    known = {**facts, **facts["machine"]}
    listed = [(key, str(value)) for key, value in known.items() if key != "machine"]
    sections.append(markdown_table(("fact", "value"), listed))
    write_text(folder / "bench.md", "\n\n".join(sections) + "\n")

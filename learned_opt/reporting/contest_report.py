"""The table and the page of a contest of networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.contest import FIGURES
from learned_opt.evaluation.intervals import mean_interval, paired_difference
from learned_opt.reporting import numbers
from learned_opt.reporting.tables import table_of

HEADINGS = ("network", "parameters", "optimizer", "lr", *FIGURES, "accuracy - first", "ms/step")
NOTES = """\
Each network's optimizer is the one of the benchmark, at the learning rate, that ends with the
lowest training loss on tuning seeds; held-out seeds are equal for all networks, and nothing is
tuned on them. Brackets: 95% intervals over seeds; "accuracy - first" is paired by seed with the
first network."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of ``contest.contest`` as text, with the headings as keys."""
    return [_cells(row, rows[0]) for row in rows]


def _cells(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, str]:
    texts: dict[str, str] = dict.fromkeys(HEADINGS, numbers.ABSENT)
    texts["network"] = row["network"]
    texts["parameters"] = f"{row['parameters']:,}"
    texts["optimizer"] = row["optimizer"]
    texts["lr"] = numbers.learning_rate(row["lr"])
    texts["ms/step"] = f"{row['ms/step']:.3f}"

    for figure in FIGURES:
        if figure in row:
            texts[figure] = numbers.interval(mean_interval(row[figure]))

    if row is not first and "accuracy" in row:
        difference = paired_difference(row["accuracy"], first["accuracy"])
        texts["accuracy - first"] = numbers.interval(difference, signed=True)

    return texts


def write(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``contest.json`` and ``contest.md``.

    Args:
        folder: run folder.
        rows: of ``contest.contest``.
        facts: what a reader needs to repeat it, ``command`` among them.
    """
    write_json(folder / "contest.json", {**facts, "rows": rows})

    page = table_of(HEADINGS, summarise(rows)).markdown
    text = f"# Networks at the same task\n\n{page}\n\n{NOTES}\n\n{facts['command']}\n"
    write_text(folder / "contest.md", text)

"""The table and the page of a contest of networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learned_opt.evaluation.contest import FIGURES
from learned_opt.evaluation.intervals import Interval, bootstrap_mean, paired_difference
from learned_opt.reporting import tables

HEADINGS = ("network", "parameters", "optimizer", "lr", *FIGURES, "accuracy - first", "ms/step")


NOTES = """\
Each network's optimizer is the one of the benchmark, at the learning rate, that ends with the lowest training loss on
tuning seeds; held-out seeds, equal for all networks, are used once. Brackets: 95% bootstrap intervals over seeds;
"accuracy - first" is paired by seed with the first network."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows as people read them, with the headings as keys."""
    shown = []
    for row in rows:
        own = {figure: _say(bootstrap_mean(row[figure])) for figure in FIGURES if figure in row}
        ahead = "-"
        if row is not rows[0] and "accuracy" in row:
            ahead = _say(paired_difference(row["accuracy"], rows[0]["accuracy"]), "+")
        facts = {
            "network": row["network"],
            "parameters": f"{row['parameters']:,}",
            "optimizer": row["optimizer"],
        }
        rest = {
            "lr": f"{row['lr']:.3g}",
            "accuracy - first": ahead,
            "ms/step": f"{row['ms/step']:.3f}",
        }
        shown.append({**dict.fromkeys(HEADINGS, "-"), **facts, **own, **rest})
    return shown


def write(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``contest.json`` and ``contest.md``."""
    tables.write_json(folder / "contest.json", {**facts, "rows": rows})
    shown = summarise(rows)
    page = tables.markdown_table(
        HEADINGS, ([row[heading] for heading in HEADINGS] for row in shown)
    )
    (folder / "contest.md").write_text(
        f"# Networks at the same task\n\n{page}\n\n{NOTES}\n\n{facts['command']}\n"
    )


def _say(interval: Interval, sign: str = "") -> str:
    return f"{interval.mean:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"

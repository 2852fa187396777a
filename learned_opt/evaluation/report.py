"""The files that a comparison leaves in its run folder."""

import csv
import math
from pathlib import Path
from typing import Any

from learned_opt.evaluation import plots, tables
from learned_opt.evaluation.tables import Entry

NOTES = """\
Mean loss: mean training loss over the horizon, the meta-loss. Final loss: the same over the last 10 inner steps.
Brackets: 95% bootstrap intervals over held-out seeds, whose weights and batches nothing was trained or tuned on.
Steps to target: median inner steps to reach the best baseline's final loss, and how many seeds did; lr: tuned.
ms/step: milliseconds per inner step of one network, measured with all optimizers interleaved."""


def write_report(
    folder: Path,
    task: dict[str, Any],
    entries: dict[str, Entry],
    learned: str,
    facts: dict[str, str],
    warnings: list[str],
) -> list[dict[str, Any]]:
    """Write ``evaluation.json``, ``report.md`` and ``curves.png``.

    Args:
        folder: run folder; the meta-loss is read from its ``metrics.csv`` where there is one.
        task: description of the task, its ``task`` entry is the name.
        entries: optimizer name -> held-out runs.
        learned: which of them is the learned one.
        facts: lines of the reproducibility table.
        warnings: sentences that a reader of the numbers must know.

    Returns:
        list[dict[str, Any]]: the rows of ``evaluation.json``.
    """
    rows = tables.evaluation_rows(task["task"], entries)
    tables.write_json(folder / "evaluation.json", rows)
    finite = {name: e.runs.losses for name, e in entries.items() if e.runs.losses.isfinite().all()}
    plots.plot_curves(folder / "curves.png", finite, meta_losses(folder / "metrics.csv"))
    summaries = tables.summarise(rows)
    parts = [
        f"# {learned} on {task['task']}",
        tables.markdown_table(tables.HEADINGS, map(tables.cells, summaries)),
        "\n".join(f"- {sentence}" for sentence in [*tables.verdicts(rows, learned), *warnings]),
        NOTES,
        "![inner and outer curves](curves.png)",
        tables.markdown_table(("fact", "value"), [*((k, str(v)) for k, v in task.items()), *facts.items()]),
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")
    return rows


def meta_losses(path: Path) -> list[tuple[int, float]]:
    """(outer step, meta-loss) points of a ``metrics.csv``; empty when there is none."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("meta_loss/train")]
    points = [(int(row["step"]), float(row["meta_loss/train"])) for row in rows]
    return [(step, value) for step, value in points if math.isfinite(value)]

"""The files that a comparison leaves in its run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from learned_opt.evaluation.compare import Comparison
from learned_opt.reporting import plots, tables
from learned_opt.reporting.record import points, read_table

NOTES = """\
Mean loss: mean training loss over the horizon, the meta-loss. Final loss: the same over the last 10 inner steps.
Brackets: 95% bootstrap intervals over held-out seeds, whose weights and batches nothing was trained or tuned on.
Steps to target: median inner steps to reach the best baseline's final loss, and how many seeds did; lr: tuned.
ms/step: milliseconds per inner step of one network, measured with all optimizers interleaved."""


def write_report(
    folder: Path,
    tasks: Mapping[str, dict[str, Any]],
    comparisons: Mapping[str, Comparison],
    learned: str,
    facts: dict[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Write ``evaluation.json``, ``report.md`` and ``curves.png``; each task has a table and a row of pictures.

    Args:
        folder: run folder; the meta-loss is read from its ``metrics.csv`` where there is one.
        tasks: task -> its description.
        comparisons: task -> held-out runs of all optimizers.
        learned: which of them is the learned one.
        facts: lines of the reproducibility table.

    Returns:
        dict[str, list[dict[str, Any]]]: task -> its rows of ``evaluation.json``.
    """
    rows = {task: tables.evaluation_rows(task, own.entries) for task, own in comparisons.items()}
    tables.write_json(folder / "evaluation.json", [row for own in rows.values() for row in own])
    column = "meta_loss/train/{}" if len(tasks) > 1 else "meta_loss/train"
    metrics = folder / "metrics.csv"
    logged = read_table(metrics, ["step"]) if metrics.is_file() else pd.DataFrame()
    outer = {task: points(logged, column.format(task)) for task in tasks}
    plots.plot_curves(
        folder / "curves.png", {task: _curves(own) for task, own in comparisons.items()}, outer
    )
    sections = [
        _section(task, rows[task], own.warnings, learned) for task, own in comparisons.items()
    ]
    described = [
        tables.markdown_table((f"fact of {t}", "value"), ((k, str(v)) for k, v in d.items()))
        for t, d in tasks.items()
    ]
    parts = [
        f"# {learned} on {', '.join(tasks)}",
        *sections,
        NOTES,
        "![inner and outer curves](curves.png)",
        *described,
        tables.markdown_table(("fact", "value"), facts.items()),
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")
    return rows


def _section(task: str, rows: list[dict[str, Any]], warnings: list[str], learned: str) -> str:
    table = tables.markdown_table(tables.HEADINGS, map(tables.cells, tables.summarise(rows)))
    sentences = "\n".join(
        f"- {sentence}" for sentence in [*tables.verdicts(rows, learned), *warnings]
    )
    parts, heldout = [f"## {task}", table, sentences], tables.heldout_table(rows)
    if heldout:
        parts.append(tables.markdown_table(heldout[0], (row.values() for row in heldout)))
    return "\n\n".join(parts)


def _curves(comparison: Comparison) -> dict[str, plots.Curve]:
    losses = {name: entry.runs.losses.numpy() for name, entry in comparison.entries.items()}
    return {name: plots.Curve(np.arange(1, len(own) + 1), own) for name, own in losses.items()}

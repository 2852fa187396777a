"""The table, the page and the picture of an estimator lab."""

from pathlib import Path
from typing import Any

from learned_opt.evaluation.estimator_lab import HEADINGS, Estimates, blocks, summarise
from learned_opt.reporting import plots, tables

NOTES = """\
Reference: mean of {replicates} estimates of {reference}, {steps:,} inner steps in all; its standard error is
{error:.1%} of its norm. Bias: relative excess of the mean estimate along the reference, with its standard error over
{replicates} independent estimates. Perturbed estimators aim at a smoothed meta-loss: part of their bias is that of
smoothing. SNR: squared norm of the mean over the total variance of one estimate. Var x steps compares at equal
compute. Left out: tasks that were not finite, all replicates together."""


def write_report(
    folder: Path, estimates: dict[str, Estimates], reference: str
) -> tuple[list[dict[str, Any]], str]:
    """Write ``lab.json``, ``lab.md`` and ``lab.png``.

    Args:
        folder: existing folder.
        estimates: by name; ``reference`` among them is what the others are measured against.
        reference: what made the reference.

    Returns:
        tuple: rows for the terminal, and the notes to them.
    """
    flat, aim = estimates["reference"].flat, estimates["reference"].gradients
    rows = [summarise(name, own, flat.mean(0)) for name, own in estimates.items()]
    means = {name: values.mean(0) for name, values in aim.items()}
    tables.write_json(
        folder / "lab.json",
        {
            "estimators": rows,
            "blocks": {name: blocks(own, means) for name, own in estimates.items()},
        },
    )
    notes = NOTES.format(
        replicates=len(flat),
        reference=reference,
        steps=len(flat) * estimates["reference"].num_inner_steps,
        error=float((flat.var(0).sum() / len(flat)).sqrt() / flat.mean(0).norm()),
    )
    shown = [
        {key: f"{v:.3g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
    ]
    page = tables.markdown_table(HEADINGS, ([str(row[key]) for key in HEADINGS] for row in shown))
    (folder / "lab.md").write_text(f"{page}\n\n{notes}\n\n![bias and variance](lab.png)\n")
    plots.plot_estimators(folder / "lab.png", rows)
    return shown, notes

"""The table, the page and the picture of an estimator lab."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.estimator_lab import HEADINGS, Estimates, blocks, summarise
from learned_opt.reporting import plots
from learned_opt.reporting.tables import table_of

NOTES = """\
Reference: mean of {replicates} estimates of {reference}, {steps:,} inner steps in all; its
standard error is {error:.1%} of its norm. Bias: relative excess of the mean estimate along
the reference, with its standard error over {replicates} independent estimates. Perturbed
estimators aim at a smoothed meta-loss: part of their bias is that of smoothing. SNR: squared
norm of the mean over the total variance of one estimate. Var x steps compares at equal
compute. Left out: tasks that were not finite, all replicates together."""


def write_report(
    folder: Path, estimates: Mapping[str, Estimates], reference: str
) -> tuple[list[dict[str, Any]], str]:
    """Write ``lab.json``, ``lab.md`` and ``lab.png``.

    Args:
        folder: existing folder.
        estimates: by name; ``reference`` among them is what the others are measured against.
        reference: what made the reference.

    Returns:
        tuple: rows for the terminal, and the notes to them.
    """
    aim = estimates["reference"]
    mean = aim.flat.mean(0)  # (P,)
    rows = [summarise(name, one, mean) for name, one in estimates.items()]
    write_json(
        folder / "lab.json", {"estimators": rows, "blocks": _blocks(estimates, aim.gradients)}
    )

    texts = [_cells(row) for row in rows]
    notes = _notes(aim, reference)
    page = table_of(HEADINGS, texts).markdown
    write_text(folder / "lab.md", f"{page}\n\n{notes}\n\n![bias and variance](lab.png)\n")
    plots.save(estimators_figure(rows), folder / "lab.png")

    return texts, notes


def _blocks(
    estimates: Mapping[str, Estimates], aim: Mapping[str, Any]
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of every estimator for each parameter of theta."""
    means = {name: values.mean(0) for name, values in aim.items()}
    return {name: blocks(one, means) for name, one in estimates.items()}


def _notes(aim: Estimates, reference: str) -> str:
    flat = aim.flat  # (R, P)
    squared_error = flat.var(0).sum() / len(flat)  # of the mean, all of theta together
    return NOTES.format(
        replicates=len(flat),
        reference=reference,
        steps=len(flat) * aim.num_inner_steps,
        error=float(squared_error.sqrt() / flat.mean(0).norm()),
    )


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits of every number that is not a count."""
    texts = {}
    for heading, value in row.items():
        texts[heading] = f"{value:.3g}" if isinstance(value, float) else value
    return texts


def estimators_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Bias with its 95% interval over variance at equal compute, a point for each estimator.

    Args:
        rows: of ``estimator_lab.summarise``.
    """
    figure, axes = plots.panel(7, 4.2)
    for i, row in enumerate(rows):
        marker = plots.MARKERS[i % len(plots.MARKERS)]
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        look: dict[str, Any] = {"marker": marker, "color": colour, "label": row["estimator"]}
        axes.errorbar(row["var x steps"], row["bias"], 1.96 * row["stderr"], capsize=3, **look)

    axes.axhline(0, color="0.6", linewidth=1)
    ylabel = "relative bias along the reference"
    axes.set(xscale="log", xlabel="variance of one estimate x its inner steps", ylabel=ylabel)
    plots.finish(axes)
    return figure

"""The report of a coordinate check: slopes as a table, changes over widths as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.coordinate_check import Changes, Slope
from learned_opt.evaluation.results import jsonable
from learned_opt.reporting import numbers, plots
from learned_opt.reporting.tables import Table

NAME = "coordinate_check"  # of the files
NOTES = """\
Root mean square of the change of each layer's pre-activations (for a loss traced at one batch per
seed) after the steps, and the slope of its logarithm over that of the width: mean over seeds with a
95% interval. About 0 is transfer over widths, 1 grows like the width."""


def slopes_table(slopes: Sequence[Slope], changes: Mapping[int, Changes]) -> Table:
    """A row for each layer: its slope, and the mean change at every width."""
    rows = []
    for layer, slope, passed in slopes:
        means = []
        for of_width in changes.values():
            means.append(f"{np.mean(of_width[layer]):.3g}")
        verdict = "yes" if passed else "NO"
        rows.append([layer, *means, _shown(slope), verdict])
    return Table(["layer", *map(str, changes), "slope", "transfers"], rows)


def _shown(slope: Any) -> str:
    if math.isnan(slope.mean):
        return "does not move"
    return numbers.interval(slope, 3)


def write(
    folder: Path,
    slopes: Sequence[Slope],
    changes: Mapping[int, Changes],
    question: str,
    facts: Mapping[str, Any],
) -> list[str]:
    """Write JSON, Markdown and the picture; returns their names.

    Args:
        folder: of the run.
        slopes: of every layer.
        changes: width -> layer -> change of each seed.
        question: optimizer, task and parametrisation, the title.
        facts: command, versions and machine.
    """
    content = {
        "question": question,
        "slopes": slopes,
        "changes": changes,
        "facts": facts,
    }
    files = [folder / f"{NAME}.{ending}" for ending in ("json", "md", "png")]
    write_json(files[0], jsonable(content))
    table = slopes_table(slopes, changes).markdown
    write_text(files[1], f"# {question}\n\n{table}\n\n{NOTES}\n\n![changes]({files[2].name})\n")

    figure, axes = plots.panel()
    widths = list(changes)
    for i, (layer, slope, _) in enumerate(slopes):
        values = np.array([changes[width][layer] for width in widths])  # (widths, M)
        label = f"{layer}, {slope.mean:+.2f}" if math.isfinite(slope.mean) else layer
        axes.plot(widths, values.mean(1), marker="o", label=label, **plots.style(i))
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="change, root mean square")
    axes.set_xticks(widths, list(map(str, widths)))
    axes.minorticks_off()
    plots.finish(axes, question, legend_below=len(slopes) > 4)
    plots.save(figure, files[2])
    return [file.name for file in files]

"""What a meta-optimizer does to every inner tensor over inner time, from ``diagnostics.csv``."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learned_opt.core.figures import UPDATES, figure
from learned_opt.evaluation.frames import distinct, select
from learned_opt.reporting import plots

COLUMNS = ("outer_step", "task", "inner_step", "tensor", "quantity", "value")  # of diagnostics.csv
MAX_LEGEND = 12  # tensors


def tasks(diagnostics: pd.DataFrame) -> list[str]:
    """Names of the tasks that were measured."""
    return distinct(diagnostics, "task") if len(diagnostics) else []


def last_measured(diagnostics: pd.DataFrame, task: str) -> pd.DataFrame:
    """The rows of a task from the last outer step at which it was measured."""
    rows = select(diagnostics, task=task)
    return select(rows, outer_step=max(rows["outer_step"]))


def update_table(measured: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Inner step x tensor, tensors in the order of the network.

    Tensors that lack this quantity have a column too, so that all panels look alike.

    Args:
        measured: of ``last_measured``.
        quantity: one of the quantities of ``evaluation.behaviour``.
    """
    rows = select(measured, quantity=quantity)
    tensors = distinct(measured, "tensor")
    table = rows.pivot(index="inner_step", columns="tensor", values="value")
    return table.reindex(columns=tensors)


def update_panel(
    axes: Axes, measured: pd.DataFrame, quantity: str, *, has_legend: bool = True
) -> None:
    """One quantity over inner steps, a line for each tensor, from dark (first) to light (last).

    Args:
        axes: where to draw.
        measured: of ``last_measured``.
        quantity: which of its quantities.
        has_legend: name the tensors below the panel.
    """
    table = update_table(measured, quantity)
    shades = colormaps["viridis"](np.linspace(0.0, 0.75, table.shape[1]))
    for i, (tensor, values) in enumerate(table.items()):
        look = {"color": shades[i], "linestyle": plots.STYLES[i % len(plots.STYLES)]}
        label = str(tensor) if has_legend else None
        axes.plot(table.index, values, linewidth=1.6, label=label, **look)

    axes.set(xlabel="inner step", ylabel=figure(quantity).label)
    if quantity.startswith("cosine"):
        axes.set_ylim(-1.05, 1.05)
    else:
        axes.set_yscale(plots.scale([table.to_numpy()]))

    plots.finish(axes, legend_below=has_legend)


def updates_figure(diagnostics: pd.DataFrame) -> Figure:
    """All quantities of the last outer step that was measured: a row for each task.

    Args:
        diagnostics: rows of ``diagnostics.csv``.
    """
    names = tasks(diagnostics)
    size = (3.4 * len(UPDATES), 3.2 * len(names) + 0.6)
    drawing = Figure(figsize=size, layout="constrained")
    grid = drawing.subplots(len(names), len(UPDATES), squeeze=False)
    for row, task in zip(grid, names, strict=True):
        measured = last_measured(diagnostics, task)
        has_legend = len(distinct(measured, "tensor")) <= MAX_LEGEND
        for axes, quantity in zip(row, UPDATES, strict=True):
            # one legend for all panels of a row
            is_last = quantity is UPDATES[-1]
            update_panel(axes, measured, quantity.name, has_legend=has_legend and is_last)
        row[0].set_title(f"{task}, outer step {measured['outer_step'].max()}", fontsize=10)

    return drawing

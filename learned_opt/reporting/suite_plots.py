"""Pictures of an evaluation suite."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_opt.evaluation.cells import Cell
from learned_opt.reporting.plots import COLOURS, STYLES

RATIOS = np.geomspace(1, 32, 200)  # times as slow as the best one


def profiles_figure(profiles: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Performance profiles over ``RATIOS``, a panel for each.

    Args:
        profiles: (what the cost is, optimizer -> shares).
    """
    figure = Figure(figsize=(5.5 * len(profiles), 4.2), layout="constrained")
    axes = figure.subplots(1, len(profiles), squeeze=False)
    for panel, (cost, shares) in zip(axes[0], profiles, strict=True):
        for i, (name, values) in enumerate(shares.items()):
            panel.step(RATIOS, values, where="post", label=name, **_line(i))
        ticks = [1, 2, 4, 8, 16, 32]
        panel.set(
            xscale="log",
            ylim=(-0.02, 1.02),
            xlabel=f"{cost} over the best one's",
            ylabel="share of runs",
        )
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3, linewidth=0.5)
    axes[0][0].legend(frameon=False, fontsize=9)
    return figure


def wins_figure(wins: Mapping[str, Mapping[str, float]]) -> Figure:
    """How often the row ends below the column, in per cent."""
    names = list(wins)
    table = np.array([[wins[row].get(col, np.nan) for col in names] for row in names]) * 100
    size = 2.2 + 0.62 * len(names)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, cmap="RdBu", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            dark = abs(value - 50) > 35
            axes.text(
                j,
                i,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "black",
            )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("row ends below column, % of paired runs", fontsize=10)
    return figure


def training_figure(curves: Mapping[tuple[str, int], Mapping[str, Cell]]) -> Figure:
    """Median training loss over inner steps with a 10-90% band, a panel for each task and horizon.

    Runs that diverged leave the top of the picture; their number is in the legend.
    """
    columns = min(2, len(curves))
    shape = (-(-len(curves) // columns), columns)
    figure = Figure(figsize=(6 * columns, 4.2 * shape[0]), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for panel in axes.flat[len(curves) :]:
        panel.axis("off")
    for panel, ((task, horizon), cells) in zip(axes.flat, curves.items(), strict=False):
        for i, (name, cell) in enumerate(cells.items()):
            smooth = cell.runs.trailing_loss.numpy()
            steps = np.arange(horizon - len(smooth) + 1, horizon + 1)
            low, median, high = np.quantile(smooth, [0.1, 0.5, 0.9], axis=1, method="lower")
            gone = sum(cell.table["diverged"].tolist())
            label = f"{name} ({gone} of {smooth.shape[1]} diverged)" if gone else name
            panel.plot(
                steps, np.where(np.isfinite(median), median, np.nan), label=label, **_line(i)
            )
            band = np.isfinite(high)
            panel.fill_between(
                steps[band], low[band], high[band], color=_line(i)["color"], alpha=0.15, linewidth=0
            )
        panel.set(yscale="log", xlabel="inner step", ylabel="training loss (trailing mean of 10)")
        panel.set_title(
            f"{task}, horizon {horizon}: median and 10-90% of held-out seeds", fontsize=10
        )
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
        panel.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def _line(index: int) -> dict[str, Any]:
    """Colours and styles go round apart from each other, so that many curves differ."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % (len(COLOURS) - 1)]}

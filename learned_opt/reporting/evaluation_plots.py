"""Pictures of a whole evaluation: learning curves of all settings, performance profiles, wins.

Legend: T inner steps, M seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from learned_opt.evaluation.curves import Curves
from learned_opt.evaluation.time_to_target import FURTHEST
from learned_opt.reporting import plots
from learned_opt.reporting.plots import Array, Points

RATIOS = np.geomspace(1, 32, 200)  # times as slow as the best one
TICKS = (1, 2, 4, 8, 16, 32)
NEAR_RATIOS = np.linspace(1, FURTHEST, 200)  # those that a score counts
NEAR_TICKS = (1, 2, 3, 4)


def curves_figure(curves: Curves, outer: Mapping[str, Points]) -> Figure:
    """Training loss over inner steps, a row for each setting, beside the meta-loss of its task.

    Args:
        curves: (task, horizon) -> optimizer -> ``(T, M)``.
        outer: task -> meta-loss over outer steps; without any there are no right panels.
    """
    has_outer = any(outer.values())
    size = (11 if has_outer else 6, 4.2 * len(curves))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(curves), 2 if has_outer else 1, squeeze=False)

    several_horizons = len({task for task, _ in curves}) < len(curves)
    for row, ((task, horizon), losses) in zip(grid, curves.items(), strict=True):
        title = f"{task}, horizon {horizon}" if several_horizons else task
        plots.inner_panel(row[0], losses, title)

        if outer.get(task):
            title = f"{task}, meta-training"
            plots.outer_panel(row[1], {"each estimate": outer[task]}, {}, title)
        elif has_outer:
            row[1].axis("off")  # no outer step of this task was finite

    return figure


def profiles_figure(
    profiles: Sequence[tuple[str, Mapping[str, Array]]], *, near: bool = False
) -> Figure:
    """Performance profiles, a panel for each.

    Args:
        profiles: (what the cost is, optimizer -> shares).
        near: over ``NEAR_RATIOS`` and of workloads, in place of ``RATIOS`` and runs.
    """
    ratios = NEAR_RATIOS if near else RATIOS
    ticks = NEAR_TICKS if near else TICKS
    counted = "workloads" if near else "runs"
    figure = Figure(figsize=(5.5 * len(profiles), 4.2), layout="constrained")
    panels = figure.subplots(1, len(profiles), squeeze=False)[0]
    for axes, (cost, shares) in zip(panels, profiles, strict=True):
        for i, (name, values) in enumerate(shares.items()):
            # colours and styles go round apart from each other, so that many curves differ
            look = {**plots.style(i), "linestyle": plots.STYLES[i % (len(plots.COLOURS) - 1)]}
            axes.step(ratios, values, where="post", label=name, **look)

        axes.set(xscale="linear" if near else "log", ylim=(-0.02, 1.02))
        axes.set(xlabel=f"{cost} over the best one's", ylabel=f"share of {counted}")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3, linewidth=0.5)

    panels[0].legend(frameon=False, fontsize=9)
    return figure


def wins_figure(wins: Mapping[str, Mapping[str, float]]) -> Figure:
    """How often the row ends below the column, in per cent.

    Args:
        wins: row -> column -> share of paired runs, see ``aggregate.win_matrix``.
    """
    names = list(wins)
    shares = np.full((len(names), len(names)), np.nan)
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            shares[i, j] = 100 * wins[row].get(column, np.nan)

    size = 2.2 + 0.62 * len(names)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="RdBu", vmin=0, vmax=100)

    for (i, j), value in np.ndenumerate(shares):
        if np.isfinite(value):
            colour = "white" if abs(value - 50) > 35 else "black"  # readable on dark cells
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=9, color=colour)

    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("row ends below column, % of paired runs", fontsize=10)

    return figure

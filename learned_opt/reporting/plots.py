"""Pictures of runs; line styles and lightness as well as colours tell the curves apart.

Legend: T inner steps, M seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from learned_opt.evaluation.intervals import Interval

COLOURS = (
    "#0b1f5c",
    "#7a1f6b",
    "#b5303c",
    "#1c8557",
    "#c87f00",
)  # from dark to light, for greyscale
STYLES = ("-", "--", "-.", ":")  # one less than colours, so that 20 curves differ
MARKERS = "osD^vPX*"
SMOOTHING = 10  # inner steps of the trailing mean, fewer where there are less than 100
MAX_POINTS = 200  # of a drawn curve
HUGE = 1e300  # stands for the loss of a run that diverged
WIDTH = 4.8  # inches of a panel; its text is readable on a phone, which shows it at about this size
Points = Sequence[tuple[int, float]]


class Curve(NamedTuple):
    """Losses of several runs of one optimizer.

    Args:
        steps: inner steps, the first is 1, ``(T,)``.
        losses: ``(T, M)``; infinite from where a run diverged.
    """

    steps: NDArray[np.integer]
    losses: NDArray[np.floating]


def panel(width: float = WIDTH, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure with one panel; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def style(index: int) -> dict[str, Any]:
    """Line of the ``index``-th curve of a panel."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % len(STYLES)]}


def plot_curves(
    path: Path, losses: Mapping[str, Mapping[str, Curve]], outer: Mapping[str, Points]
) -> None:
    """Inner loss over inner steps, one band per optimizer, beside the meta-loss over outer steps; a row for each task.

    Args:
        path: PNG to write.
        losses: task -> optimizer -> training losses of its runs.
        outer: task -> (outer step, meta-loss) points; the right panels are left out where there are none.
    """
    wide = any(outer.values())
    figure = Figure(figsize=(11 if wide else 6, 4.2 * len(losses)), layout="constrained")
    grid = figure.subplots(len(losses), 2 if wide else 1, squeeze=False)
    for row, task in zip(grid, losses, strict=True):
        inner_panel(row[0], losses[task], task)
        if outer[task]:
            outer_panel(row[1], {"each estimate": outer[task]}, {}, f"{task}, meta-training")
        elif wide:
            row[1].axis("off")  # no outer step of this task was finite
    figure.savefig(path, dpi=150)


def plot_estimators(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Bias with its 95% interval over variance at equal compute, a point for each estimator.

    Args:
        path: PNG to write.
        rows: of ``lab.summarise``.
    """
    figure, axes = panel(7, 4.2)
    for i, row in enumerate(rows):
        x, bias, error = row["var x steps"], row["bias"], row["stderr"]
        look: dict[str, Any] = {
            "marker": MARKERS[i % len(MARKERS)],
            "color": COLOURS[i % len(COLOURS)],
        }
        axes.errorbar(x, bias, 1.96 * error, capsize=3, label=row["estimator"], **look)
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set(
        xscale="log",
        xlabel="variance of one estimate x its inner steps",
        ylabel="relative bias along the reference",
    )
    finish(axes)
    figure.savefig(path, dpi=150)


def finish(axes: Axes, title: str = "", legend_below: bool = False) -> None:
    """Grid, title and legend; a logarithmic axis of few decades gets numbers without exponents."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        if axis.get_scale() == "log" and high < 100 * low:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.set_title(title, fontsize=10)
    names = axes.get_legend_handles_labels()[1]
    if legend_below or len(names) > 8:  # where it hides no curve
        axes.legend(
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
            handlelength=3,
        )
    elif names:
        axes.legend(frameon=False, fontsize=9, handlelength=3)


def inner_panel(axes: Axes, losses: Mapping[str, Curve], task: str) -> None:
    """Training loss over inner steps: median and 10-90% band over held-out seeds."""
    shown, window = [], SMOOTHING
    for i, (name, (steps, values)) in enumerate(losses.items()):
        window = min(SMOOTHING, -(-len(steps) // 10))
        low, median, high = band(values, window)
        some = slice(None, None, -(-len(median) // MAX_POINTS))
        x = steps[window - 1 :][some]
        axes.plot(x, median[some], linewidth=1.8, label=name, **style(i))
        axes.fill_between(
            x, low[some], high[some], color=style(i)["color"], alpha=0.15, linewidth=0
        )
        shown.append(median)
    axes.set(
        xlabel="inner step",
        ylabel=f"training loss (trailing mean of {window})",
        yscale=scale(shown),
    )
    finish(axes, f"{task}, held-out seeds: median and 10-90% band")


def band(values: NDArray[np.floating], window: int) -> tuple[NDArray[np.floating], ...]:
    """10%, 50% and 90% quantiles over seeds of the trailing mean, ``(T, M) -> (T - window + 1,)`` each.

    NaN where the quantile falls on a run that diverged, so that a curve ends there.
    """
    smooth = np.lib.stride_tricks.sliding_window_view(values, window, axis=0).mean(-1)
    quantiles = np.quantile(
        np.minimum(smooth, HUGE), (0.1, 0.5, 0.9), axis=1
    )  # infinity less infinity is no number
    return tuple(np.where(quantiles < HUGE / 1e6, quantiles, np.nan))


def outer_panel(
    axes: Axes,
    train: Mapping[str, Points],
    valid: Mapping[str, Points],
    title: str,
    ylabel: str = "meta-loss",
) -> None:
    """Meta-loss over outer steps: every estimate faintly, their trailing mean, and markers on validation seeds.

    Args:
        axes: where to draw.
        train: name -> (outer step, meta-loss) of the perturbed thetas.
        valid: the same of theta itself on validation seeds.
        title: of the panel.
        ylabel: what the values are.
    """
    drawn = []
    for i, name in enumerate(dict.fromkeys([*train, *valid])):
        suffix = f"{name}, " if len({**train, **valid}) > 1 else ""
        if train.get(name):
            steps, values = map(np.asarray, zip(*train[name], strict=True))
            smooth, window = trailing_mean(values)
            label = f"{suffix}trailing mean of {window}"
            axes.plot(steps, values, color=style(i)["color"], alpha=0.3, linewidth=0.7)
            axes.plot(steps, smooth, linewidth=1.8, label=label, **style(i))
            drawn.append(values)
        if valid.get(name):
            steps, values = map(np.asarray, zip(*valid[name], strict=True))
            marker: dict[str, Any] = {
                "marker": MARKERS[i % len(MARKERS)],
                "linestyle": "none",
                "markeredgecolor": "black",
            }
            axes.plot(steps, values, color=style(i)["color"], label=f"{suffix}validation", **marker)
            drawn.append(values)
    axes.set(xlabel="outer step", ylabel=ylabel, yscale=scale(drawn))
    finish(axes, title, legend_below=len({**train, **valid}) > 1)


def trailing_mean(values: NDArray[np.floating]) -> tuple[NDArray[np.floating], int]:
    """Mean over the last points, a fiftieth of the curve; also how many that is."""
    window = max(1, len(values) // 50)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - window + 1, 0)
    last = np.arange(1, len(values) + 1)
    return (sums[last] - sums[first]) / (last - first), window


def scale(curves: Sequence[NDArray[np.floating]]) -> str:
    """Logarithmic where all values are positive and span more than a factor of 3; a meta-loss of logs is negative."""
    values = np.concatenate([np.ravel(curve) for curve in curves]) if curves else np.array([])
    values = values[np.isfinite(values)]
    return (
        "log" if len(values) and values.min() > 0 and values.max() > 3 * values.min() else "linear"
    )


def interval_figure(intervals: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Means with 95% intervals: a panel for each figure of merit, a line for each optimizer.

    Args:
        intervals: figure of merit -> optimizer -> interval; one that is not finite is left out.
    """
    names = list(dict.fromkeys(name for own in intervals.values() for name in own))
    figure = Figure(
        figsize=(WIDTH, (0.22 * len(names) + 0.65) * len(intervals)), layout="constrained"
    )
    for axes, (title, own) in zip(
        figure.subplots(len(intervals), 1, squeeze=False)[:, 0], intervals.items(), strict=True
    ):
        finite = {name: value for name, value in own.items() if np.isfinite(value.mean)}
        for name, (mean, low, high) in finite.items():
            i = names.index(name)
            look: dict[str, Any] = {
                "color": style(i)["color"],
                "marker": MARKERS[i % len(MARKERS)],
                "capsize": 4,
            }
            axes.errorbar(mean, i, xerr=[[mean - low], [high - mean]], **look)
        axes.set(
            yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlabel=title
        )
        axes.set_xscale(scale([np.array([value.mean for value in finite.values()])]))
        finish(axes)
    return figure

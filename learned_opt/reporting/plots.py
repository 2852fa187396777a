"""How pictures look: line styles and lightness as well as colours tell the curves apart.

Legend: T inner steps, M seeds.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from learned_opt.core.files import write_whole
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
WIDTH = 4.8  # inches of a panel; a phone shows it at about this size, so that its text is readable
DPI = 150
Array = NDArray[np.floating]
Points = Sequence[tuple[int, float]]  # (outer step, value)


def panel(width: float = WIDTH, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure with one panel; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    write_whole(path, content.getbuffer())


def style(index: int) -> dict[str, Any]:
    """Colour and line style of the ``index``-th curve of a panel."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index % len(STYLES)]}


def finish(axes: Axes, title: str = "", legend_below: bool = False) -> None:
    """Grid, title and legend; a logarithmic axis of few decades has numbers without exponents."""
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
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
        axes.legend(frameon=False, fontsize=8, handlelength=3, **below)
    elif names:
        axes.legend(frameon=False, fontsize=9, handlelength=3)


def scale(curves: Sequence[Array]) -> str:
    """The scale of an axis: logarithmic where values are positive and span more than a factor of 3.

    A meta-loss of logarithms is negative.
    """
    values = np.concatenate([np.ravel(curve) for curve in curves]) if curves else np.array([])
    values = values[np.isfinite(values)]
    is_wide = len(values) > 0 and values.min() > 0 and values.max() > 3 * values.min()
    return "log" if is_wide else "linear"


def inner_panel(axes: Axes, losses: Mapping[str, Array], title: str) -> None:
    """Training loss over inner steps: median and 10-90% band over held-out seeds.

    Args:
        axes: where to draw.
        losses: optimizer -> ``(T, M)``; infinite from where a run diverged.
        title: what was trained.
    """
    medians = []
    window = SMOOTHING
    for i, (name, values) in enumerate(losses.items()):
        num_steps, num_seeds = values.shape
        window = min(SMOOTHING, -(-num_steps // 10))
        low, median, high = band(values, window)

        # the page holds every drawn point as text
        thinned = slice(None, None, -(-len(median) // MAX_POINTS))
        steps = np.arange(window, num_steps + 1)[thinned]
        diverged = int(np.isinf(values[-1]).sum())
        label = f"{name} ({diverged} of {num_seeds} diverged)" if diverged else name
        look = {**_mark(median, i), **style(i)}
        axes.plot(steps, median[thinned], linewidth=1.8, label=label, **look)
        colour = style(i)["color"]
        axes.fill_between(steps, low[thinned], high[thinned], color=colour, alpha=0.15, linewidth=0)
        medians.append(median)

    ylabel = f"training loss (trailing mean of {window})"
    axes.set(xlabel="inner step", ylabel=ylabel, yscale=scale(medians))
    finish(axes, f"{title}: median, 10-90% of held-out seeds")


def band(values: Array, window: int) -> tuple[Array, Array, Array]:
    """10%, 50% and 90% quantiles over seeds of the trailing mean.

    NaN where the quantile falls on a run that diverged, so that a curve ends there.

    Args:
        values: losses ``(T, M)``.
        window: inner steps of the mean.

    Returns:
        tuple: three arrays ``(T - window + 1,)``.
    """
    smooth = np.lib.stride_tricks.sliding_window_view(values, window, axis=0).mean(-1)
    # infinity less infinity is no number, so that quantiles are taken of something huge
    quantiles = np.quantile(np.minimum(smooth, HUGE), (0.1, 0.5, 0.9), axis=1)
    low, median, high = np.where(quantiles < HUGE / 1e6, quantiles, np.nan)
    return low, median, high


def outer_panel(
    axes: Axes,
    train: Mapping[str, Points],
    valid: Mapping[str, Points],
    title: str,
    ylabel: str = "meta-loss",
) -> None:
    """Meta-loss over outer steps: every estimate faintly, their trailing mean, and markers.

    Args:
        axes: where to draw.
        train: name -> meta-loss of the perturbed thetas.
        valid: the same of theta itself on validation seeds, drawn as markers.
        title: of the panel.
        ylabel: what the values are.
    """
    names = list(dict.fromkeys([*train, *valid]))
    several = len(names) > 1

    drawn = []
    for i, name in enumerate(names):
        prefix = f"{name}, " if several else ""
        if train.get(name):
            steps, values = _arrays(train[name])
            smooth, window = trailing_mean(values)
            axes.plot(steps, values, color=style(i)["color"], alpha=0.3, linewidth=0.7)
            label = f"{prefix}trailing mean of {window}"
            axes.plot(steps, smooth, linewidth=1.8, label=label, **_mark(smooth, i), **style(i))
            drawn.append(values)

        if valid.get(name):
            steps, values = _arrays(valid[name])
            look: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "linestyle": "none"}
            look |= {"markeredgecolor": "black", "color": style(i)["color"]}
            axes.plot(steps, values, label=f"{prefix}validation", **look)
            drawn.append(values)

    axes.set(xlabel="outer step", ylabel=ylabel, yscale=scale(drawn))
    finish(axes, title, legend_below=several)


def _mark(values: Array, index: int) -> dict[str, str]:
    """A marker for a curve of one point, of which no line can be seen."""
    return {"marker": MARKERS[index % len(MARKERS)]} if len(values) == 1 else {}


def _arrays(points: Points) -> tuple[Array, Array]:
    steps, values = zip(*points, strict=True)
    return np.asarray(steps), np.asarray(values)


def trailing_mean(values: Array) -> tuple[Array, int]:
    """Mean over the last points, a fiftieth of the curve; also how many that is."""
    window = max(1, len(values) // 50)
    # differences of running sums: windows at the start are shorter
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - window + 1, 0)
    last = np.arange(1, len(values) + 1)
    return (sums[last] - sums[first]) / (last - first), window


def interval_figure(intervals: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Means with 95% intervals: a panel for each figure of merit, a line for each optimizer.

    Args:
        intervals: label of the figure -> optimizer -> interval; one that is not finite is left out.
    """
    names = list(dict.fromkeys(name for column in intervals.values() for name in column))
    height = (0.22 * len(names) + 0.65) * len(intervals)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(intervals), 1, squeeze=False)[:, 0]

    for axes, (title, column) in zip(panels, intervals.items(), strict=True):
        finite = {name: value for name, value in column.items() if np.isfinite(value.mean)}
        for name, (mean, low, high) in finite.items():
            i = names.index(name)
            look: dict[str, Any] = {"color": style(i)["color"], "marker": MARKERS[i % len(MARKERS)]}
            axes.errorbar(mean, i, xerr=[[mean - low], [high - mean]], capsize=4, **look)

        limits = (len(names) - 0.5, -0.5)  # the first on top
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=limits, xlabel=title)
        axes.set_xscale(scale([np.array([value.mean for value in finite.values()])]))
        finish(axes)

    return figure

"""Boxes and arrows of the drawings, and how a figure becomes a file."""

import io
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from learned_opt.core.files import write_whole

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "learned_opt"  # the same drawing is the same bytes
BLUE = "#8fb8de"
ORANGE = "#f2b880"
GREEN = "#9fcf9f"
GREY = "#dddddd"
Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[plt.Figure, plt.Axes]:
    """A figure without axes; one unit is an inch."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(
    axes: plt.Axes, corner: Point, size: Point, text: str, color: str, top: bool = False
) -> None:
    """A box with its text in the middle, or at the top where it holds others."""
    style = "round,pad=0,rounding_size=0.08"
    shade = 0.35 if top else 1.0
    patch = FancyBboxPatch(
        corner, *size, boxstyle=style, facecolor=color, edgecolor="#444444", alpha=shade
    )
    axes.add_patch(patch)
    height = corner[1] + (size[1] - 0.25 if top else size[1] / 2)
    axes.text(corner[0] + size[0] / 2, height, text, ha="center", va="center", fontsize=10)


def arrow(axes: plt.Axes, start: Point, end: Point, text: str, below: bool = False) -> None:
    """An arrow with a word beside its middle."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black"})
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    shift = -0.17 if below else 0.14
    axes.text(middle[0], middle[1] + shift, text, ha="center", va="center", fontsize=9)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure as SVG or PNG on white, so that it can be read on a dark page too."""
    content = io.BytesIO()
    dated = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], dpi=150, facecolor="white", metadata=dated)
    plt.close(figure)
    write_whole(path, content.getvalue())

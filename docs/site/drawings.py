"""Draws the pictures of the concept pages: ``python docs/site/drawings.py``.

They are part of the repository, so that pages show them before anything is built.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from boxes import BLUE, GREEN, GREY, ORANGE, arrow, box, canvas, save

from learned_opt.unf.partitions import num_partitions

FOLDER = Path(__file__).parents[1] / "drawings"
LAYERS = {"W1": ("h", "x"), "W2": ("y", "h")}  # tensor -> permutation name of each axis
SIZES = {"x": 3, "h": 4, "y": 2}


def loops() -> plt.Figure:
    """Inner loop inside of the outer loop."""
    figure, axes = canvas(9, 4.3)
    box(axes, (0.2, 0.3), (8.6, 3.7), "outer loop: one step of meta-training", GREY, top=True)
    box(axes, (0.5, 0.6), (5.2, 2.7), "inner loop: K steps of a network", BLUE, top=True)
    box(axes, (0.8, 1.3), (1.4, 0.9), "network\nparams", BLUE)
    box(axes, (3.7, 1.3), (1.7, 0.9), "learned\noptimizer\ntheta", ORANGE)
    box(axes, (6.5, 2.1), (2.0, 0.9), "estimator of the\nmeta-gradient", GREEN)
    box(axes, (6.5, 0.7), (2.0, 0.9), "outer optimizer\n(Adam)", GREY)
    arrow(axes, (2.2, 2.0), (3.7, 2.0), "gradient, loss")
    arrow(axes, (3.7, 1.5), (2.2, 1.5), "update", below=True)
    arrow(axes, (5.7, 2.6), (6.5, 2.6), "losses")
    arrow(axes, (7.5, 2.1), (7.5, 1.6), "")
    arrow(axes, (6.5, 1.0), (5.0, 1.3), "theta moves", below=True)
    return figure


def chains() -> plt.Figure:
    """A pair of chains, its horizon, unrolls and restarts."""
    figure, axes = canvas(9, 3.8)
    for row, (name, color) in enumerate((("theta + eps", ORANGE), ("theta - eps", BLUE))):
        y = 2.3 - 0.8 * row
        axes.text(0.1, y + 0.2, name, fontsize=10, va="center")
        for unroll in range(6):
            shade = color if unroll < 4 else GREY
            box(axes, (1.6 + 1.15 * unroll, y), (1.1, 0.45), f"K steps, {unroll % 4 + 1}", shade)
    axes.annotate("", (6.15, 3.0), (1.6, 3.0), arrowprops={"arrowstyle": "<->"})
    axes.text(3.9, 3.1, "horizon: T inner steps, then a fresh network", ha="center", fontsize=10)
    axes.annotate("", (2.7, 1.3), (1.6, 1.3), arrowprops={"arrowstyle": "<->"})
    axes.text(1.6, 0.95, "unroll: one estimate,\none step of theta", fontsize=10, va="top")
    axes.plot([6.175, 6.175], [1.35, 2.9], color="black", linewidth=1.5, linestyle="--")
    axes.text(6.2, 1.15, "truncation: the chains restart", fontsize=10, va="top")
    axes.text(3.4, 0.5, "the two chains of a pair see the same data", fontsize=10, va="top")
    return figure


def permutations() -> plt.Figure:
    """Two orders of the hidden units of one network."""
    figure, axes = canvas(9, 3.4)
    for offset, order in ((0.3, (0, 1, 2)), (5.0, (2, 0, 1))):
        colors = (ORANGE, BLUE, GREEN)
        places = {layer: [] for layer in ("x", "h", "y")}
        for layer, x, size in (("x", 0.3, 2), ("h", 1.7, 3), ("y", 3.1, 2)):
            for unit in range(size):
                y = 0.7 + 2.2 * (unit + 0.5) / size
                places[layer].append((offset + x, y))
        for unit, hidden in enumerate(places["h"]):
            for other in (*places["x"], *places["y"]):
                ends = ([hidden[0], other[0]], [hidden[1], other[1]])
                axes.plot(*ends, color=colors[order[unit]], linewidth=1.6, zorder=1)
        for layer, points in places.items():
            for unit, point in enumerate(points):
                color = colors[order[unit]] if layer == "h" else "white"
                axes.scatter(*point, s=320, color=color, edgecolor="black", zorder=2)
    axes.text(2.0, 0.25, "axes: x fixed, h free, y fixed", ha="center", fontsize=10)
    axes.text(6.7, 0.25, "h permuted: the same function", ha="center", fontsize=10)
    axes.text(4.35, 1.8, "=", fontsize=26, ha="center", va="center")
    return figure


def orbit(target: str, row: tuple[int, ...], source: str, column: tuple[int, ...]) -> tuple:
    """What stays of a pair of entries under all permutations: which equal axes have equal index."""
    axes = [*zip(LAYERS[target], row, strict=True), *zip(LAYERS[source], column, strict=True)]
    first = [axes.index(axis) for axis in axes]
    return (target, source, *first)


def shared_matrix() -> plt.Figure:
    """All coefficients of one equivariant layer on the weights of an MLP."""
    entries = []
    for tensor, (rows, columns) in LAYERS.items():
        pairs = [(i, j) for i in range(SIZES[rows]) for j in range(SIZES[columns])]
        entries += [(tensor, pair) for pair in pairs]
    orbits: dict[tuple, int] = {}
    matrix = []
    for target, row in entries:
        keys = [orbit(target, row, source, column) for source, column in entries]
        matrix.append([orbits.setdefault(key, len(orbits)) for key in keys])

    expected = 0
    for target in LAYERS.values():
        expected += sum(num_partitions(target, source) for source in LAYERS.values())
    assert len(orbits) == expected, (len(orbits), expected)

    figure, axes = plt.subplots(figsize=(5.6, 5.8), layout="constrained")
    axes.imshow(matrix, cmap="tab20", vmin=0, vmax=20)
    num_first = SIZES["h"] * SIZES["x"]
    axes.axhline(num_first - 0.5, color="black")
    axes.axvline(num_first - 0.5, color="black")
    middles = [num_first / 2 - 0.5, num_first + SIZES["y"] * SIZES["h"] / 2 - 0.5]
    axes.set_xticks(middles, ["from W1 (h, x)", "from W2 (y, h)"])
    axes.set_yticks(middles, ["to W1 (h, x)", "to W2 (y, h)"], rotation=90, va="center")
    axes.set_title(f"{len(entries)} x {len(entries)} numbers, {len(orbits)} of them free")
    return figure


def bias_and_variance() -> plt.Figure:
    """The lab of 2026-11-23: bias against variance at equal cost."""
    measured = {  # bias along the reference, its standard error, variance times inner steps
        "truncated BPTT": (-0.486, 0.005, 0.53),
        "ES": (0.315, 0.102, 834_000),
        "truncated ES": (-0.354, 0.112, 250_000),
        "PES": (0.245, 0.145, 484_000),
        "GPES": (0.305, 0.150, 335_000),
        "NRES": (0.368, 0.153, 298_000),
    }
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.axvline(0, color="black", linewidth=0.8)
    for row, (name, (bias, error, variance)) in enumerate(measured.items()):
        color = ORANGE if name.startswith("truncated") else BLUE
        style = {"fmt": "o", "color": color, "capsize": 3, "markersize": 7}
        axes.errorbar(bias, -row, xerr=1.96 * error, **style)
        axes.text(0.92, -row, f"{variance:,.3g}", ha="right", va="center", fontsize=9)
    axes.text(0.92, 0.7, "variance x steps", ha="right", fontsize=9)
    axes.set(xlim=(-0.7, 0.95), ylim=(-len(measured) + 0.4, 1.1))
    axes.set_yticks([-row for row in range(len(measured))], list(measured))
    axes.set_xlabel("bias along the reference, as a share of it, with its 95% interval")
    return figure


def comparison() -> plt.Figure:
    """Which seeds may be looked at when."""
    figure, axes = canvas(9, 2.9)
    box(axes, (0.2, 1.5), (2.5, 1.0), "training and validation\nseeds: theta is learned", ORANGE)
    box(axes, (0.2, 0.3), (2.5, 1.0), "tuning seeds: 26 rates\nfor every baseline", BLUE)
    box(axes, (4.0, 0.9), (2.2, 1.0), "held-out seeds:\nall, once", GREEN)
    box(axes, (7.2, 0.9), (1.6, 1.0), "paired\nintervals", GREY)
    arrow(axes, (2.7, 2.0), (4.0, 1.6), "theta")
    arrow(axes, (2.7, 0.8), (4.0, 1.2), "best rate", below=True)
    arrow(axes, (6.2, 1.4), (7.2, 1.4), "")
    return figure


DRAWINGS: dict[str, Callable[[], plt.Figure]] = {
    "loops": loops,
    "chains": chains,
    "permutations": permutations,
    "unf_matrix": shared_matrix,
    "estimators": bias_and_variance,
    "comparison": comparison,
}


if __name__ == "__main__":
    for drawing_name, draw in DRAWINGS.items():
        save(draw(), FOLDER / f"{drawing_name}.svg")

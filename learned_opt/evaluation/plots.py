"""Pictures of runs; line styles as well as colours tell the curves apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only: needs no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

COLOURS = ("#0b3c8c", "#d1495b", "#4f9d69", "#b07d12", "#7a5195")  # of different lightness, for greyscale
STYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))
SMOOTHING = 10  # inner steps of the trailing mean


def plot_curves(
    path: Path, losses: Mapping[str, dict[str, Tensor]], outer: Mapping[str, Sequence[tuple[int, float]]]
) -> None:
    """Inner loss over inner steps, one band per optimizer, beside the meta-loss over outer steps; a row for each task.

    Args:
        path: PNG to write.
        losses: task -> optimizer -> training losses ``(T, M)`` of M seeds; drawn as median and 10-90% band.
        outer: task -> (outer step, meta-loss) points; the right panels are left out where there are none.
    """
    wide = any(outer.values())
    size = (11 if wide else 6, 4.2 * len(losses))
    figure, axes = plt.subplots(len(losses), 2 if wide else 1, figsize=size, squeeze=False)
    for row, task in zip(axes, losses, strict=True):
        _inner_panel(row[0], losses[task], task)
        if outer[task]:
            _outer_panel(row[1], outer[task], task)
        elif wide:
            row[1].axis("off")  # no outer step of this task was finite
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_estimators(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Bias with its 95% interval over variance at equal compute, a point for each estimator.

    Args:
        path: PNG to write.
        rows: of ``lab.summarise``.
    """
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for i, row in enumerate(rows):
        x, bias, error = row["var x steps"], row["bias"], row["stderr"]
        marker, colour = "osD^vPX*"[i % 8], COLOURS[i % len(COLOURS)]
        axes.errorbar(x, bias, 1.96 * error, color=colour, marker=marker, capsize=3, label=row["estimator"])
    axes.axhline(0, color="0.6", linewidth=1)
    axes.set(
        xscale="log", xlabel="variance of one estimate x its inner steps", ylabel="relative bias along the reference"
    )
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _inner_panel(axes: Axes, losses: dict[str, Tensor], task: str) -> None:
    for i, (name, values) in enumerate(losses.items()):
        window = min(SMOOTHING, len(values))
        smooth = values.unfold(0, window, 1).mean(-1)
        steps = range(window, len(values) + 1)
        low, median, high = (smooth.quantile(q, dim=1).numpy() for q in (0.1, 0.5, 0.9))
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        axes.plot(steps, median, color=colour, linestyle=style, linewidth=1.8, label=name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set(yscale="log", xlabel="inner step", ylabel=f"training loss (trailing mean of {SMOOTHING})")
    axes.set_title(f"{task}, held-out seeds: median and 10-90% band", fontsize=10)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)


def _outer_panel(axes: Axes, outer: Sequence[tuple[int, float]], task: str) -> None:
    steps, values = zip(*outer, strict=True)
    axes.plot(steps, values, color=COLOURS[0], alpha=0.3, linewidth=0.8, label="each estimate")
    window = max(1, len(values) // 50)
    smooth = [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]
    axes.plot(steps, smooth, color=COLOURS[0], linewidth=1.8, label=f"trailing mean of {window}")
    scale = "linear" if min(values) <= 0 else "log"  # a meta-loss of logarithms is negative
    axes.set(yscale=scale, xlabel="outer step", ylabel="meta-loss")
    axes.set_title(f"{task}, meta-training", fontsize=10)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)

"""What a meta-optimizer does to every inner tensor over inner time, as a picture."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learned_opt.evaluation.behaviour import QUANTITIES
from learned_opt.reporting.plots import STYLES

LABELS = {
    "update_to_weight": "|update| / |weights|",
    "effective_lr": "effective learning rate",
    "cosine_sgd": "cosine to SGD",
    "cosine_momentum": "cosine to momentum",
    "cosine_adam": "cosine to Adam",
}
LOGARITHMIC = ("update_to_weight", "effective_lr")  # where all values are positive
MAX_LEGEND = 12  # tensors


@contextmanager
def drawn(diagnostics: pd.DataFrame) -> Iterator[Figure]:
    """A figure of the last outer step that was measured: a row for each task, a panel for each quantity.

    Lines go from dark (tensors near the input) to light.

    Args:
        diagnostics: rows of ``diagnostics.csv``.

    Yields:
        Figure: closed afterwards.
    """
    last = diagnostics["outer_step"].max()
    tasks = dict(
        list(diagnostics.loc[diagnostics["outer_step"] == last].groupby("task", sort=False))
    )
    size = (3.4 * len(QUANTITIES), 3.2 * len(tasks) + 0.6)
    figure, axes = plt.subplots(len(tasks), len(QUANTITIES), figsize=size, squeeze=False)
    for row, (task, own) in zip(axes, tasks.items(), strict=True):
        tensors = list(dict.fromkeys(own["tensor"]))
        for panel, quantity in zip(row, QUANTITIES, strict=True):
            _panel(panel, own.loc[own["quantity"] == quantity], tensors, quantity)
            panel.set_title(LABELS[quantity], fontsize=10)
        row[0].set_ylabel(f"{task}, outer step {last}")
        if len(tensors) <= MAX_LEGEND:
            row[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    yield figure
    plt.close(figure)


def _panel(axes: Axes, rows: pd.DataFrame, tensors: list[str], quantity: str) -> None:
    shades = colormaps["viridis"].resampled(
        len(tensors) + 1
    )  # the lightest one is hard to see on white
    for i, tensor in enumerate(tensors):
        own = rows.loc[rows["tensor"] == tensor]
        style = STYLES[i % len(STYLES)]
        axes.plot(
            own["inner_step"],
            own["value"],
            color=shades(i),
            linestyle=style,
            linewidth=1.4,
            label=tensor,
        )
    if quantity in LOGARITHMIC and all(rows["value"] > 0):
        axes.set_yscale("log")
    axes.set_xlabel("inner step")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)

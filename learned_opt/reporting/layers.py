"""What the learned update does to each tensor over inner time, from ``diagnostics.csv``."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from learned_opt.reporting import plots

COLUMNS = ("outer_step", "task", "inner_step", "tensor", "quantity", "value")  # of diagnostics.csv
LABELS = {
    "effective_lr": "effective learning rate",
    "update_to_weight": "norm of update / norm of weight",
    "cosine_sgd": "cosine of the update to SGD's",
    "cosine_momentum": "cosine of the update to momentum's",
    "cosine_adam": "cosine of the update to Adam's",
}


def tasks(diagnostics: pd.DataFrame) -> list[str]:
    """Names of the tasks that were measured."""
    return list(diagnostics["task"].unique()) if len(diagnostics) else []


def last_measured(diagnostics: pd.DataFrame, task: str) -> pd.DataFrame:
    """The rows of a task from the last outer step at which it was measured."""
    own = diagnostics.loc[diagnostics["task"] == task]
    return own.loc[own["outer_step"] == own["outer_step"].max()]


def layer_panel(axes: Axes, measured: pd.DataFrame, quantity: str) -> None:
    """One quantity over inner steps, a line for each tensor, from dark (first) to light (last).

    Args:
        axes: where to draw.
        measured: of ``last_measured``.
        quantity: which of its quantities.
    """
    wide = layer_table(measured, quantity)
    shades = colormaps["viridis"](np.linspace(0.0, 0.75, wide.shape[1]))
    for i, (tensor, values) in enumerate(wide.items()):
        line = plots.STYLES[i % len(plots.STYLES)]
        axes.plot(
            wide.index, values, color=shades[i], linestyle=line, linewidth=1.6, label=str(tensor)
        )
    axes.set(xlabel="inner step", ylabel=LABELS.get(quantity, quantity))
    if quantity.startswith("cosine"):
        axes.set_ylim(-1.05, 1.05)
    else:
        axes.set_yscale(plots.scale([wide.to_numpy()]))
    plots.finish(axes, legend_below=True)


def layer_table(measured: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Inner step x tensor, tensors in the order of the network."""
    own = measured.loc[measured["quantity"] == quantity]
    tensors = list(
        dict.fromkeys(measured["tensor"])
    )  # also those that lack this quantity, so that all panels look alike
    return own.pivot(index="inner_step", columns="tensor", values="value").reindex(columns=tensors)

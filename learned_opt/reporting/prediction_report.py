"""How well the predictors rank the networks of a zoo: a table, a page and a picture."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only: needs no display

from matplotlib import pyplot as plt
from torch import Tensor

from learned_opt.evaluation.prediction.fit import Prediction
from learned_opt.reporting import tables

HEADINGS = (
    "predictor",
    "parameters",
    "Kendall's tau",
    "standard error",
    "test loss",
    "epochs",
    "seconds",
)
NOTES = """\
Kendall's tau-b between predicted and true success on the test split; mean and standard error over {seeds} seeds of
the predictor (initial weights and order of batches), same split for all. Test loss: binary cross-entropy, nats; epochs
until the lowest validation loss; seconds for one seed."""


def summarise(
    name: str, num_parameters: int, predictions: list[Prediction], seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    taus = [p.tau for p in predictions]
    error = round(stdev(taus) / len(taus) ** 0.5, 4) if len(taus) > 1 else None
    values = (
        name,
        num_parameters,
        round(fmean(taus), 4),
        error,
        round(fmean(p.loss for p in predictions), 4),
        round(fmean(p.epochs for p in predictions)),
        round(seconds / len(predictions), 1),
    )
    return dict(zip(HEADINGS, values, strict=True))


def write_report(
    folder: Path,
    rows: list[dict[str, Any]],
    facts: dict[str, Any],
    success: Tensor,
    predicted: dict[str, Tensor],
) -> None:
    """Write ``prediction.json``, ``prediction.md`` and ``prediction.png``.

    Args:
        folder: of the zoo.
        rows: from ``summarise``.
        facts: what the zoo is made of.
        success: true success rates of the test split, ``(n,)``.
        predicted: predictor name -> predictions of its first seed, ``(n,)``.
    """
    tables.write_json(folder / "prediction.json", rows)
    page = tables.markdown_table(
        HEADINGS, ([str(row[heading]) for heading in HEADINGS] for row in rows)
    )
    notes = NOTES.format(seeds=facts["seeds"])
    made_of = tables.markdown_table(
        ("fact", "value"), ((key, str(value)) for key, value in facts.items())
    )
    (folder / "prediction.md").write_text(
        f"{page}\n\n{notes}\n\n![true and predicted success](prediction.png)\n\n{made_of}\n"
    )
    figure, axes = plt.subplots(
        1, len(predicted), figsize=(3.4 * len(predicted), 3.6), sharey=True, squeeze=False
    )
    for axis, (name, values), row in zip(axes[0], predicted.items(), rows, strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axis.scatter(success, values, s=8, color="#0072b2", alpha=0.6, linewidths=0)
        axis.set(title=f"{name}, tau {row[HEADINGS[2]]}", xlabel="true success rate")
        axis.set_aspect("equal")
    axes[0][0].set_ylabel("predicted")
    limit = 1.05 * max(
        float(success.max()), *(float(values.max()) for values in predicted.values())
    )
    axes[0][0].set(xlim=(-0.02, limit), ylim=(-0.02, limit))
    for axis in axes[0][1:]:
        axis.set_xlim(-0.02, limit)
    figure.tight_layout()
    figure.savefig(folder / "prediction.png", dpi=120)
    plt.close(figure)

"""How well the predictors rank the networks of a zoo: a table, a page and a picture.

Legend: n networks of the test split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.prediction.fit import Prediction
from learned_opt.reporting import plots
from learned_opt.reporting.tables import markdown_table, table_of

HEADINGS = (
    "predictor",
    "parameters",
    "Kendall's tau",
    "standard error",
    "validation tau",
    "test loss",
    "epochs",
    "seconds",
)
NOTES = """\
Kendall's tau-b between predicted and true success on the test split; mean and standard error
over {seeds} seeds of the predictor (initial weights and order of batches), same split for
all. Validation tau: that of the split on which training was stopped. Test loss: binary
cross-entropy, nats; epochs until the best validation figure; seconds for one seed."""


def summarise(
    name: str, num_parameters: int, predictions: Sequence[Prediction], seconds: float
) -> dict[str, Any]:
    """One row of the table.

    Args:
        name: of the predictor.
        num_parameters: of the predictor.
        predictions: one for each seed.
        seconds: that all seeds took together.
    """
    taus = [prediction.tau for prediction in predictions]
    error = None
    if len(taus) > 1:
        error = round(stdev(taus) / len(taus) ** 0.5, 4)

    values = (
        name,
        num_parameters,
        round(fmean(taus), 4),
        error,
        round(fmean(prediction.valid_tau for prediction in predictions), 4),
        round(fmean(prediction.loss for prediction in predictions), 4),
        round(fmean(prediction.epochs for prediction in predictions)),
        round(seconds / len(predictions), 1),
    )

    return dict(zip(HEADINGS, values, strict=True))


def write_report(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    facts: Mapping[str, Any],
    success: Tensor,
    predicted: Mapping[str, Tensor],
) -> None:
    """Write ``prediction.json``, ``prediction.md`` and ``prediction.png``.

    Args:
        folder: of the zoo.
        rows: from ``summarise``.
        facts: what the zoo is made of.
        success: true success rates of the test split, ``(n,)``.
        predicted: predictor name -> predictions of its first seed, ``(n,)``.
    """
    write_json(folder / "prediction.json", rows)

    page = table_of(HEADINGS, rows).markdown
    notes = NOTES.format(seeds=facts["seeds"])
    made_of = markdown_table(("fact", "value"), [(key, str(facts[key])) for key in facts])
    picture = "![true and predicted success](prediction.png)"
    write_text(folder / "prediction.md", f"{page}\n\n{notes}\n\n{picture}\n\n{made_of}\n")

    taus = [row[HEADINGS[2]] for row in rows]  # Kendall's tau
    plots.save(prediction_figure(success, predicted, taus), folder / "prediction.png")


def prediction_figure(
    success: Tensor, predicted: Mapping[str, Tensor], taus: Sequence[float]
) -> Figure:
    """A panel for each predictor: its predictions over the truth.

    Args:
        success: true success rates, ``(n,)``.
        predicted: predictor name -> predictions, ``(n,)``.
        taus: of the predictors.
    """
    figure = Figure(figsize=(3.4 * len(predicted), 3.6), layout="constrained")
    panels = figure.subplots(1, len(predicted), sharey=True, squeeze=False)[0]
    highest = max(float(values.max()) for values in (success, *predicted.values()))

    for panel, (name, values), tau in zip(panels, predicted.items(), taus, strict=True):
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        panel.scatter(success, values, s=8, color="#0072b2", alpha=0.6, linewidths=0)
        panel.set(title=f"{name}, tau {tau}", xlabel="true success rate")
        panel.set(xlim=(-0.02, 1.05 * highest), ylim=(-0.02, 1.05 * highest))
        panel.set_aspect("equal")

    panels[0].set_ylabel("predicted")
    return figure

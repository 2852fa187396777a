"""How well the predictors rank the networks of a zoo: tables, a page and pictures.

Legend: n networks of the test split.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.prediction.rank_difference import tau_difference
from learned_opt.evaluation.prediction.trials import Trial
from learned_opt.reporting import plots
from learned_opt.reporting.tables import Table, markdown_table, table_of

HEADINGS = (
    "predictor",
    "networks",
    "parameters",
    "Kendall's tau",
    "standard error",
    "validation tau",
    "test loss",
    "epochs",
    "seconds",
)
DIFFERENCE_HEADINGS = ("difference", "networks", "Kendall's tau", "low", "high")
NOTES = """\
Networks: those trained on. Kendall's tau-b between predicted and true success on the test split;
mean and standard error over {seeds} seeds of the predictor (initial weights and order of batches),
same split for all. Validation tau: that of the split on which training was stopped. Test loss:
binary cross-entropy, nats; epochs until the best validation figure; seconds for one seed.

Differences with their 95% intervals, over networks of the test split and seeds: they hold for other
networks of such a zoo and other seeds, not for another zoo or training split."""


def write_report(
    folder: Path, trials: Sequence[Trial], facts: Mapping[str, Any], success: Tensor
) -> list[Table]:
    """Write ``prediction.json``, ``prediction.md`` and ``prediction.png``.

    Where predictors were trained on several numbers of networks, also ``prediction_curve.png``.

    Args:
        folder: of the zoo.
        trials: of each predictor, those of one number of networks after each other.
        facts: what the zoo is made of.
        success: true success rates of the test split, ``(n,)``.

    Returns:
        list[Table]: of the predictors, and of their differences.
    """
    rows = [_summary(trial) for trial in trials]
    differences = _differences(trials, success)
    write_json(folder / "prediction.json", {"predictors": rows, "differences": differences})

    tables = [table_of(HEADINGS, rows)]
    if differences:
        tables.append(table_of(DIFFERENCE_HEADINGS, differences))

    largest = [trial for trial in trials if trial.num_train == trials[-1].num_train]
    plots.save(prediction_figure(success, largest), folder / "prediction.png")
    pictures = ["![true and predicted success](prediction.png)"]
    if len(largest) < len(trials):
        plots.save(curve_figure(trials), folder / "prediction_curve.png")
        pictures.append("![tau over the number of networks](prediction_curve.png)")

    notes = NOTES.format(seeds=facts["seeds"])
    made_of = markdown_table(("fact", "value"), [(key, str(facts[key])) for key in facts])
    parts = [*(table.markdown for table in tables), notes, *pictures, made_of]
    write_text(folder / "prediction.md", "\n\n".join(parts) + "\n")
    return tables


def _summary(trial: Trial) -> dict[str, Any]:
    """One row of the table of predictors."""
    predictions = trial.predictions
    error = _standard_error(trial.taus)
    values = (
        trial.predictor,
        trial.num_train,
        trial.num_parameters,
        round(fmean(trial.taus), 4),
        None if error is None else round(error, 4),
        round(fmean(prediction.valid_tau for prediction in predictions), 4),
        round(fmean(prediction.loss for prediction in predictions), 4),
        round(fmean(prediction.epochs for prediction in predictions)),
        round(fmean(prediction.seconds for prediction in predictions), 1),
    )
    return dict(zip(HEADINGS, values, strict=True))


def _standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None where one value tells nothing of it."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _differences(trials: Sequence[Trial], success: Tensor) -> list[dict[str, Any]]:
    """The first predictor less each other one, for each number of networks."""
    rows = []
    for num_train, group in groupby(trials, key=lambda trial: trial.num_train):
        first, *others = group
        for other in others:
            interval = tau_difference(_predicted(first), _predicted(other), success.tolist())
            title = f"{first.predictor} - {other.predictor}"
            values = (title, num_train, *(round(value, 4) for value in interval))
            rows.append(dict(zip(DIFFERENCE_HEADINGS, values, strict=True)))
    return rows


def _predicted(trial: Trial) -> list[list[float]]:
    """Predictions for the test split, a list for each seed."""
    return [prediction.predicted.tolist() for prediction in trial.predictions]


def prediction_figure(success: Tensor, trials: Sequence[Trial]) -> Figure:
    """A panel for each predictor: predictions of its first seed over the truth.

    Args:
        success: true success rates, ``(n,)``.
        trials: one for each predictor.
    """
    figure = Figure(figsize=(3.4 * len(trials), 4.2), layout="constrained")
    panels = figure.subplots(1, len(trials), sharey=True, squeeze=False)[0]
    predicted = [trial.predictions[0].predicted for trial in trials]
    highest = max(float(values.max()) for values in (success, *predicted))

    for panel, trial, values in zip(panels, trials, predicted, strict=True):
        tau = fmean(trial.taus)
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        panel.scatter(success, values, s=8, color="#0072b2", alpha=0.6, linewidths=0)
        panel.set(title=f"{trial.predictor}, tau {tau:.4f}", xlabel="true success rate")
        panel.set(xlim=(-0.02, 1.05 * highest), ylim=(-0.02, 1.05 * highest))
        panel.set_aspect("equal")

    panels[0].set_ylabel("predicted")
    return figure


def curve_figure(trials: Sequence[Trial]) -> Figure:
    """Tau of each predictor over the number of networks it was trained on.

    Args:
        trials: of each predictor and number.
    """
    figure, panel = plots.panel()
    for i, name in enumerate(dict.fromkeys(trial.predictor for trial in trials)):
        sizes = []
        means = []
        errors = []
        for trial in trials:
            if trial.predictor == name:
                sizes.append(trial.num_train)
                means.append(fmean(trial.taus))
                errors.append(_standard_error(trial.taus) or 0.0)

        colour = plots.COLOURS[i % len(plots.COLOURS)]
        style = plots.STYLES[i % len(plots.STYLES)]
        panel.errorbar(
            sizes, means, errors, label=name, color=colour, linestyle=style, marker="o", capsize=3
        )

    panel.set_xscale("log", base=2)
    panel.set_xticks(sorted({trial.num_train for trial in trials}))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set(xlabel="networks trained on", ylabel="Kendall's tau, with its standard error")
    panel.legend()
    return figure

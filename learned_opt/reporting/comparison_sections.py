"""The sections of a report on an evaluation, whatever it compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from learned_opt.core.figures import figure
from learned_opt.evaluation import scores
from learned_opt.evaluation.aggregate import profile, win_matrix
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.generalisation import FAILURE, FITS_NOT, first_failures
from learned_opt.evaluation.results import Results
from learned_opt.evaluation.verdicts import verdict_sentences
from learned_opt.reporting import (
    evaluation_plots,
    meta_seed_tables,
    plots,
    result_tables,
    score_tables,
)
from learned_opt.reporting.plots import Array, Points
from learned_opt.reporting.result_cards import results_card
from learned_opt.reporting.sections import Drawing, Drawings, Part, Rows, Sentences

NOTES = """\
Mean loss: mean training loss over the horizon, the meta-loss. Final loss: the same over the last 10
inner steps; IQM: its interquartile mean over seeds; min loss: the lowest mean over 10 steps in a
row. Brackets: 95% intervals over held-out seeds (the wider of Student's t and the bootstrap-t),
whose weights and batches nothing was trained or tuned on and which are the same for every optimizer
(checked by digest). They are about this theta: how much another meta-training would differ is not
in them."""
TARGET_NOTES = """\
The target of a seed is {reference}'s final loss on that very seed, unless a target_loss was fixed;
where {reference} diverged there is none. Steps to target: median over the seeds that have a target,
a run that never gets there counted as infinite, and behind it how many of them got there: >200
(13/32) is 13 of 32, so that the median run had not by step 200. Speed-up: {reference}'s steps to it
over the optimizer's, 0 for a seed that never gets there; interquartile mean. Seconds to target:
median steps times the measured time of a step (all optimizers timed in turn on this machine, runs
side by side, divided by their number). lr: tuned; a row NAME-final is tuned for the final loss,
NAME for the first criterion. A run that diverged counts as infinitely bad and is never left out."""
OVERALL_NOTES = """\
Interquartile means over all tasks, horizons and seeds, brackets by stratified bootstrap (seeds are
drawn again within each task, quantiles expanded for few seeds). Loss ratio: final loss over
{reference}'s on the same seed. In the performance profiles, what an optimizer cannot be run on
counts as unsolved; the wins are over the runs that both have."""
OVERALL = "all tasks and horizons"
PROFILES = (
    "Performance profiles: share of runs that reach the target at up to so many times the lowest "
    "cost; the learned optimizers, the reference and the baselines that win most often."
)
WINS = "Win matrix: how often the row ends below the column, paired runs."
MOST_LINES = 8  # of a picture, unless there are more learned optimizers
FEW = 4  # optimizers of one setting that a table alone tells apart


def comparison_sections(
    results: Results, remarks: Sequence[str] = (), outer: Mapping[str, Points] | None = None
) -> dict[str, list[Part]]:
    """All sections.

    Args:
        results: of the evaluation.
        remarks: further sentences for the top.
        outer: task -> meta-loss over outer steps, drawn beside the learning curves in the file.
    """
    sections: dict[str, list[Part]] = {}
    warnings = [*results.warnings, *remarks]
    if warnings:
        sections["To be known"] = [Sentences(warnings)]

    frame = results.frame
    summaries = scores.summarise(frame, results.reference)

    lines = lines_of(frame, results)
    for (task, horizon), rows in _settings(frame):
        of_setting = []
        for summary in summaries:
            if (summary["task"], summary["horizon"], summary["axis"]) == (task, horizon, ""):
                of_setting.append(summary)

        verdicts = verdict_sentences(rows, results.learned)
        losses = results.curves.get((task, horizon), {})
        kept = {name: losses[name] for name in lines if name in losses}
        title = f"Result: {task}, horizon {horizon}"
        # what holds over meta-seeds stands above the single ones that it is made of
        sections[title] = _over_meta_seeds(results, task, horizon)
        sections[title] += setting_parts(f"{task}, horizon {horizon}", of_setting, kept, verdicts)

        if len(sections) <= 2:  # once, below the first table
            sections[title] += notes(results.reference)

    # of few optimizers at one setting the table above says it all
    several = len(_settings(frame)) > 1
    if several or len(distinct(frame, "optimizer")) > FEW:
        sections |= _overall(frame, results, lines)

    sections |= score_tables.score_sections(frame, lines)
    sections |= _cards(summaries, results)
    sections |= _background(results)
    if results.curves:
        shown = {}
        for key, losses in results.curves.items():
            shown[key] = {name: losses[name] for name in lines if name in losses}
        sections["Learning curves"] = [_curves_drawing(shown, outer or {})]

    return sections


def _over_meta_seeds(results: Results, task: str, horizon: int) -> list[Part]:
    summaries, sentences = meta_seed_tables.of_setting(results, task, horizon)
    if not summaries:
        return []
    table = meta_seed_tables.meta_seed_table(summaries)
    caption = f"{task}, horizon {horizon}: over meta-seeds and held-out seeds"
    return [Rows(table, caption), Sentences(sentences), meta_seed_tables.NOTES]


def notes(reference: str) -> list[Part]:
    """What the columns of the table of a comparison mean."""
    return [NOTES, TARGET_NOTES.format(reference=reference)] if reference else [NOTES]


def _settings(frame: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """(task, horizon) and rows, of the tasks themselves."""
    rows_of_setting = []
    for (task, horizon), rows in groups(select(frame, axis=""), ["task", "horizon"]):
        rows_of_setting.append(((task, horizon), rows))
    return rows_of_setting


def setting_parts(
    title: str,
    summaries: list[dict[str, Any]],
    losses: Mapping[str, Array],
    verdicts: Sequence[str],
) -> list[Part]:
    """What optimizers came to at one setting: sentences, tables and pictures.

    Args:
        title: task and horizon.
        summaries: of ``scores.summarise``.
        losses: optimizer -> held-out training losses ``(T, M)``; may lack some.
        verdicts: sentences on top.
    """
    caption = f"{title}: {summaries[0]['num_seeds']} held-out seeds"
    parts: list[Part] = [
        Sentences(verdicts),
        Rows(result_tables.comparison_table(summaries), caption),
    ]

    heldout = result_tables.heldout_table(summaries)
    if heldout:
        parts.append(Rows(heldout, "on held-out data, after the last step"))

    parts.append(Drawings(_setting_drawings(title, summaries, losses)))
    return parts


def _setting_drawings(
    title: str, summaries: list[dict[str, Any]], losses: Mapping[str, Array]
) -> list[Drawing]:
    drawings = []
    if losses:
        drawing, axes = plots.panel()
        plots.inner_panel(axes, losses, title)
        alt = f"Training loss over inner steps of {', '.join(losses)} on held-out seeds of {title}."
        drawings.append(Drawing(drawing, alt))

    columns = {}
    for name in ("mean_loss", "final_loss", "accuracy"):
        intervals = {summary["optimizer"]: summary[name] for summary in summaries}
        # a task without classes has no accuracy
        intervals = {optimizer: value for optimizer, value in intervals.items() if value}
        if intervals:
            columns[figure(name).label] = intervals

    alt = f"{', '.join(columns)} of every optimizer on {title}: means with 95% intervals."
    alt = alt[0].upper() + alt[1:]
    drawing = plots.interval_figure(columns)
    drawings.append(Drawing(drawing, alt, "Means over held-out seeds, 95% intervals."))

    return drawings


def lines_of(frame: pd.DataFrame, results: Results) -> list[str]:
    """Names of the optimizers that pictures show: no more lines than can be told apart.

    The learned ones and the reference first, then those that win most often.
    """
    names = distinct(select(frame, axis=""), "optimizer")
    first = [name for name in results.learned if name in names]

    reference = scores.reference_row(names, results.reference)
    if reference:
        first.append(reference)

    wins = win_matrix(scores.losses(frame))
    share = {}
    for name in names:
        if name not in first:
            against = list(wins[name].values())
            # NaN stands against an optimizer that shares no run
            share[name] = float(np.nanmean(against)) if against else 0.0

    # a picture of more lines could not be read
    others = sorted(share, key=lambda name: -share[name])
    return [*first, *others][: max(MOST_LINES, len(first))]


def _overall(frame: pd.DataFrame, results: Results, lines: list[str]) -> dict[str, list[Part]]:
    profiles = []
    for name in ("steps_to_target", "seconds_to_target"):
        shares = profile(scores.costs(frame, name), evaluation_plots.RATIOS)
        kept = {optimizer: shares[optimizer] for optimizer in lines if optimizer in shares}
        profiles.append((figure(name).label, kept))

    wins = win_matrix(scores.losses(frame))
    drawings = [
        Drawing(evaluation_plots.profiles_figure(profiles), PROFILES, file="profiles.png"),
        Drawing(evaluation_plots.wins_figure(wins), WINS, file="wins.png"),
    ]

    table = result_tables.overall_table(scores.aggregate(frame))
    note = OVERALL_NOTES.format(reference=results.reference)
    return {OVERALL: [Rows(table), note, Drawings(drawings)]}


def _cards(summaries: list[dict[str, Any]], results: Results) -> dict[str, list[Part]]:
    cards = results_card(results, summaries)
    note = FAILURE.format(reference=results.reference)

    sections: dict[str, list[Part]] = {}
    for task, axes in cards.items():
        table = result_tables.card_table(axes)
        sections[f"Generalisation card of {task}"] = [
            Sentences(first_failures(axes, results.reference)),
            Rows(table),
            note,
        ]
    return sections


def _background(results: Results) -> dict[str, list[Part]]:
    """What was left out, tuned, and seen before."""
    sections: dict[str, list[Part]] = {}
    reasons = set()
    for row in results.left_out:
        name = result_tables.setting_name(row)
        reasons.add(f"{row['optimizer']} on {name}: {row['reason']}")

    if reasons:
        sections[f"Left out ({FITS_NOT})"] = [Sentences(sorted(reasons))]

    if results.budgets:
        table = result_tables.budget_table(results.budgets)
        sections["What was tuned"] = [Rows(table, words=True)]

    if results.origins:
        sentences = []
        for row in results.origins:
            sentences.append(f"{row['sentence']} Trained by `{row['command']}`.")
        sections["What meta-training saw"] = [Sentences(sentences)]

    return sections


def _curves_drawing(curves: Any, outer: Mapping[str, Points]) -> Drawings:
    alt = (
        "Training loss over inner steps of every task and horizon: median and 10-90% of held-out "
        "seeds."
    )
    drawing = evaluation_plots.curves_figure(curves, outer)
    # the page shows each setting beside its table
    return Drawings([Drawing(drawing, alt, file="curves.png", on_page=False)])

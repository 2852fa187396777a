"""The files that an evaluation suite leaves in its run folder."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from learned_opt.evaluation import scores
from learned_opt.evaluation.aggregate import profile, win_matrix
from learned_opt.evaluation.generalisation import FAILURE, FITS_NOT, card
from learned_opt.evaluation.intervals import Interval
from learned_opt.evaluation.suite import Results
from learned_opt.reporting import sections as forms
from learned_opt.reporting import suite_plots
from learned_opt.reporting.sections import Drawing, Part, Rows, Sentences
from learned_opt.reporting.tables import write_json

HEADINGS = (
    "optimizer",
    "final loss",
    "IQM",
    "min loss",
    "mean loss",
    "accuracy",
    "steps to target",
    "speed-up",
    "seconds to target",
    "diverged",
    "lr",
)
SHOWN = (
    "optimizer",
    "final loss",
    "steps to target",
    "speed-up",
    "diverged",
    "lr",
)  # of these, on terminals
MOST_LINES = 8  # of a picture, unless there are more learned optimizers
OVERALL_TITLE = "all tasks and horizons"
DRAWINGS = {
    "profiles": "Performance profiles: share of runs that reach the target at up to so many times the lowest cost; the "
    "learned optimizers, the reference and the baselines that win most often.",
    "wins": "Win matrix: how often the row ends below the column, paired runs.",
    "curves": "Training loss over inner steps of every task and horizon: median and 10-90% of held-out seeds; the "
    "same optimizers as above.",
}
OVERALL = ("optimizer", "speed-up", "wall-clock speed-up", "loss ratio", "settings", "diverged")
NOTES = """\
Final loss: mean training loss over the last 10 inner steps; IQM: its interquartile mean over seeds; min loss: the
lowest mean over 10 steps in a row; mean loss: over the whole horizon. Brackets: 95% bootstrap intervals over held-out
seeds, which are the same for every optimizer, weights and batches included (checked by digest). The target of a seed is
{reference}'s final loss on that very seed. Steps to target: median over seeds, and how many reached it. Speed-up:
{reference}'s steps to it over the optimizer's, 0 for a seed that never gets there; interquartile mean. Seconds to
target: median steps times the measured time of a step (all optimizers timed in turn on this machine, runs side by side,
divided by their number). A run that diverged counts as infinitely bad and is never left out."""
OVERALL_NOTES = """\
Interquartile means over all tasks, horizons and seeds, brackets by stratified bootstrap (seeds are drawn again within
each task). Loss ratio: final loss over {reference}'s on the same seed. In the performance profiles, what an optimizer
cannot be run on counts as unsolved; the wins are over the runs that both have."""


def write(
    folder: Path, results: Results, reference: str, learned: list[str], facts: Mapping[str, str]
) -> dict[str, Any]:
    """Write ``results.parquet``, ``summary.json``, ``report.md``, ``report.html`` and the pictures.

    Args:
        folder: run folder.
        results: the suite.
        reference: the tuned baseline that speed-ups are counted against.
        learned: names of the learned optimizers.
        facts: lines of the reproducibility table.

    Returns:
        dict[str, Any]: for the terminal, (headings, rows) by title.
    """
    frame = results.frame
    summaries, overall = scores.summarise(frame, reference), scores.aggregate(frame)
    cards = card(summaries, results.left_out, learned, reference)
    wins = win_matrix(scores.losses(frame))
    frame.to_parquet(folder / "results.parquet", index=False)
    described = {
        "reference": reference,
        "learned": learned,
        "tasks": results.described,
        "summaries": summaries,
        "overall": overall,
        "wins": wins,
        "cards": cards,
        "left_out": results.left_out,
        "budgets": results.budgets,
        "origins": results.origins,
        "warnings": results.warnings,
        "facts": dict(facts),
    }
    write_json(folder / "summary.json", jsonable(described))
    tables, figures = (
        _tables(summaries, overall, cards),
        _figures(frame, results, wins, (*learned, reference)),
    )
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
    title = "Evaluation of " + ", ".join(dict.fromkeys(row["optimizer"] for row in results.origins))
    sections = _sections(results, tables, cards, reference, facts)
    (folder / "report.md").write_text(forms.markdown(title, sections))
    page = forms.page(title, sections, figures, facts.get("command", ""))
    (folder / "report.html").write_text(page, encoding="utf-8")
    return {title: _brief(*table) for title, table in tables.items()}


def _brief(
    headings: tuple[str, ...], rows: list[list[str]]
) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """What a narrow terminal holds."""
    shown = SHOWN if headings == HEADINGS else headings
    cells = [dict(zip(headings, row, strict=True)) for row in rows]
    return shown, [{heading: row[heading].replace("**", "") for heading in shown} for row in cells]


def _figures(
    frame: pd.DataFrame,
    results: Results,
    wins: Mapping[str, Mapping[str, float]],
    first: Sequence[str],
) -> dict[str, Figure]:
    """Pictures; of lines only as many as can be told apart: ``first``, then those that win most often."""
    rank = {
        name: np.nanmean(list(against.values()))
        for name, against in wins.items()
        if name not in first
    }
    lines = [*first, *sorted(rank, key=lambda name: -rank[name])][: max(MOST_LINES, len(first))]
    columns = (("steps to target", "steps_to_target"), ("seconds to target", "seconds_to_target"))
    profiles = []
    for label, column in columns:
        shares = profile(scores.costs(frame, column), suite_plots.RATIOS)
        profiles.append((label, {name: shares[name] for name in lines if name in shares}))
    curves = {
        where: {name: own[name] for name in lines if name in own}
        for where, own in results.curves.items()
    }
    return {
        "profiles": suite_plots.profiles_figure(profiles),
        "wins": suite_plots.wins_figure(wins),
        "curves": suite_plots.training_figure(curves),
    }


def _tables(summaries: list[dict], overall: list[dict], cards: Mapping[str, Any]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for summary in summaries:
        if not summary["axis"]:
            title = f"{summary['task']}, horizon {summary['horizon']}"
            tables.setdefault(title, (HEADINGS, []))[1].append(_cells(summary))
    tables[OVERALL_TITLE] = (OVERALL, [_overall(row) for row in overall])
    for task, axes in cards.items():
        names = list(next(iter(axes.values())))
        shown = [
            [axis, names_of[0].point, *map(str, names_of)]
            for axis, points in axes.items()
            for names_of in zip(*points.values(), strict=True)
        ]
        tables[f"generalisation card of {task}"] = (("axis", "point", *names), shown)
    return tables


def _cells(summary: Mapping[str, Any]) -> list[str]:
    steps, lr, ms = summary["steps_to_target"], summary["learning_rate"], summary["ms_per_step"]
    reached = f"({summary['reached']}/{summary['num_seeds']})"
    never = not math.isfinite(steps)
    return [
        summary["optimizer"],
        _interval(summary["final_loss"]),
        _number(summary["final_loss_iqm"]),
        _number(summary["min_loss"].mean),
        _number(summary["mean_loss"].mean),
        "-" if summary["accuracy"] is None else _interval(summary["accuracy"], 3),
        f"{'never' if never else format(steps, '.0f')} {reached}",
        _interval(summary["speedup"], 2),
        "never" if never else f"{steps * ms / 1e3:.3f}",
        f"{summary['diverged']}/{summary['num_seeds']}",
        "-" if math.isnan(lr) else f"{lr:.3g}",
    ]


def _overall(row: Mapping[str, Any]) -> list[str]:
    ratios = [_interval(row[ratio], 2) for ratio in scores.RATIOS]
    return [
        row["optimizer"],
        *ratios,
        f"{row['settings']}/{row['of']}",
        f"{row['diverged']}/{row['runs']}",
    ]


def _sections(
    results: Results,
    tables: Mapping[str, Any],
    cards: Mapping[str, Any],
    reference: str,
    facts: Mapping[str, str],
) -> dict[str, list[Part]]:
    sections: dict[str, list[Part]] = {}
    if results.warnings:
        sections["To be known"] = [Sentences(results.warnings)]
    notes = dict.fromkeys(list(tables)[:1], NOTES)  # once, below the first table
    notes |= {
        OVERALL_TITLE: OVERALL_NOTES,
        **{f"generalisation card of {task}": FAILURE for task in cards},
    }
    for title, (headings, rows) in tables.items():
        note = [notes[title].format(reference=reference)] if title in notes else []
        sections[title] = [Rows(headings, rows), *note]
    sections["Pictures"] = [Drawing(name, alt) for name, alt in DRAWINGS.items()]
    if unfit := {
        f"{row['optimizer']} on {_place(row)}: {row['reason']}" for row in results.left_out
    }:
        sections[f"Left out ({FITS_NOT})"] = [Sentences(sorted(unfit))]
    sections["What was tuned"] = [
        Rows(("optimizer", "where", "tuned", "chosen", "tuning", "runs"), _budget(results), True)
    ]
    sections["What meta-training saw"] = [
        Sentences(
            [
                f"{row['task']}: {row['kind']}. {row['sentence']} Trained by `{row['command']}`."
                for row in results.origins
            ]
        )
    ]
    sections["Facts"] = [
        Rows(("fact", "value"), [(key, str(value)) for key, value in facts.items()], True)
    ]
    return sections


def _budget(results: Results) -> list[list[str]]:
    rows = []
    for row in results.budgets:
        tuned = _tuned(row) if "tries" in row else "nothing"
        chosen = (
            f"{row['learning_rate']:.3g}, {row['diverged_tries']} tries diverged"
            if "tries" in row
            else "-"
        )
        seconds = [f"{row[key]:.1f} s" for key in ("tuning_seconds", "run_seconds")]
        rows.append([row["optimizer"], _place(row), tuned, chosen, *seconds])
    return rows


def _tuned(row: Mapping[str, Any]) -> str:
    tuned = f"{row['tries']} learning rates x {row['seeds']} seeds for {row['criterion']}"
    return f"{tuned}; {row['reused']} of these runs were in the archive" if row["reused"] else tuned


def _place(row: Mapping[str, Any]) -> str:
    return " ".join(
        filter(None, (row["task"], row["axis"], row["point"], f"horizon {row['horizon']}"))
    )


def jsonable(value: Any) -> Any:
    """Plain containers; numbers that are not finite become null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): jsonable(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(own) for own in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "diverged"


def _interval(interval: Interval | None, digits: int = 4) -> str:
    if interval is None:
        return "-"
    if not math.isfinite(interval.mean):
        return "diverged"
    high = f"{interval.high:.{digits}f}" if math.isfinite(interval.high) else "inf"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {high}]"

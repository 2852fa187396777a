"""The files that an evaluation suite leaves in its run folder."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from learned_opt.evaluation import scores, suite_plots
from learned_opt.evaluation.aggregate import profile, win_matrix
from learned_opt.evaluation.generalisation import FAILURE, FITS_NOT, card
from learned_opt.evaluation.metrics import Interval
from learned_opt.evaluation.suite import Results
from learned_opt.evaluation.tables import markdown_table, write_json

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
SHOWN = ("optimizer", "final loss", "steps to target", "speed-up", "diverged", "lr")  # of these, on terminals
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
    """Write ``results.parquet``, ``summary.json``, ``report.md`` and the pictures.

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
    _draw(folder, frame, results, wins)
    tables = _tables(summaries, overall, cards)
    (folder / "report.md").write_text(_page(results, tables, cards, reference, facts))
    return {title: _brief(*table) for title, table in tables.items()}


def _brief(headings: tuple[str, ...], rows: list[list[str]]) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """What a narrow terminal holds."""
    shown = SHOWN if headings == HEADINGS else headings
    cells = [dict(zip(headings, row, strict=True)) for row in rows]
    return shown, [{heading: row[heading].replace("**", "") for heading in shown} for row in cells]


def _draw(folder: Path, frame: pd.DataFrame, results: Results, wins: Mapping[str, Mapping[str, float]]) -> None:
    columns = (("steps to target", "steps_to_target"), ("seconds to target", "seconds_to_target"))
    profiles = [(label, profile(scores.costs(frame, column), suite_plots.RATIOS)) for label, column in columns]
    suite_plots.plot_profiles(folder / "profiles.png", profiles)
    suite_plots.plot_wins(folder / "wins.png", wins)
    suite_plots.plot_training(folder / "curves.png", results.curves)


def _tables(summaries: list[dict], overall: list[dict], cards: Mapping[str, Any]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for summary in summaries:
        if not summary["axis"]:
            title = f"{summary['task']}, horizon {summary['horizon']}"
            tables.setdefault(title, (HEADINGS, []))[1].append(_cells(summary))
    tables["all tasks and horizons"] = (OVERALL, [_overall(row) for row in overall])
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
    return [row["optimizer"], *ratios, f"{row['settings']}/{row['of']}", f"{row['diverged']}/{row['runs']}"]


def _page(
    results: Results, tables: Mapping[str, Any], cards: Mapping[str, Any], reference: str, facts: Mapping[str, str]
) -> str:
    parts = ["# Evaluation of " + ", ".join(dict.fromkeys(row["optimizer"] for row in results.origins))]
    for title, (headings, rows) in tables.items():
        parts += [f"## {title}", markdown_table(headings, rows)]
        if title in ("all tasks and horizons", *(f"generalisation card of {task}" for task in cards)):
            parts.append((OVERALL_NOTES if title.startswith("all") else FAILURE).format(reference=reference))
    parts += [
        NOTES.format(reference=reference),
        "![profiles](profiles.png)",
        "![wins](wins.png)",
        "![curves](curves.png)",
    ]
    unfit = {f"- {row['optimizer']} on {_place(row)}: {row['reason']}" for row in results.left_out}
    sections = {
        "To be known": [f"- {sentence}" for sentence in results.warnings],
        f"Left out ({FITS_NOT})": sorted(unfit),
        "What was tuned": [
            markdown_table(("optimizer", "where", "tuned", "chosen", "tuning", "runs"), _budget(results))
        ],
        "What meta-training saw": [
            f"- {row['task']}: {row['kind']}. {row['sentence']} Trained by `{row['command']}`."
            for row in results.origins
        ],
        "Facts": [markdown_table(("fact", "value"), facts.items())],
    }
    for title, lines in sections.items():
        if lines:
            parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _budget(results: Results) -> list[list[str]]:
    rows = []
    for row in results.budgets:
        tuned = _tuned(row) if "tries" in row else "nothing"
        chosen = f"{row['learning_rate']:.3g}, {row['diverged_tries']} tries diverged" if "tries" in row else "-"
        seconds = [f"{row[key]:.1f} s" for key in ("tuning_seconds", "run_seconds")]
        rows.append([row["optimizer"], _place(row), tuned, chosen, *seconds])
    return rows


def _tuned(row: Mapping[str, Any]) -> str:
    tuned = f"{row['tries']} learning rates x {row['seeds']} seeds for {row['criterion']}"
    return f"{tuned}; {row['reused']} of these runs were in the archive" if row["reused"] else tuned


def _place(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["task"], row["axis"], row["point"], f"horizon {row['horizon']}")))


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

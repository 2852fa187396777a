"""A page that compares several runs, from their records alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from learned_opt.reporting import html, plots, tables
from learned_opt.reporting.plots import Curve
from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.run_page import card, result

FILE = "comparison.html"
CHOICE = "meta_optimizer="  # the override that a learned optimizer's name repeats
LONGEST = 40  # characters of a label
SAME = 1e-4  # relative difference between losses of the same baseline run twice, on other numbers of threads, say


def write_comparison_page(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page on several runs.

    Args:
        folders: run folders; the others are compared with the first.
        out: the file; ``comparison.html`` in the folder that all runs lie in by default.

    Raises:
        ValueError: a folder is given twice, is no run folder, or holds a damaged file.
    """
    paths = [folder.resolve() for folder in folders]
    if twice := [
        str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1
    ]:
        raise ValueError(f"runs must differ, but {twice[0]} is given {len(twice)} times.")
    out = out or Path(os.path.relpath(os.path.commonpath([path.parent for path in paths]))) / FILE
    out.write_text(comparison_page([read_record(folder) for folder in folders]), encoding="utf-8")
    return out


def comparison_page(records: Sequence[Record]) -> str:
    """The page: every task, meta-training, what differs between the configs, reproducibility."""
    runs = dict(zip(labels(records), records, strict=True))
    missing = [
        f"{label}: {sentence}" for label, record in runs.items() for sentence in record.missing
    ]
    tasks = dict.fromkeys(task for record in records for task in record.tasks)
    cards = {label: card(record) for label, record in runs.items()}
    sections = [
        *(
            [html.Section("What is missing", [html.sentences(missing, "missing")])]
            if missing
            else []
        ),
        *(
            _of_task(runs, task)
            for task in tasks
            if any(record.rows_of(task) for record in records)
        ),
        *_meta_training(runs, list(tasks)),
        html.Section(
            "What differs",
            [_side_by_side({label: settings(record) for label, record in runs.items()})],
        ),
        html.Section("Reproducibility", [_side_by_side(cards, hide_equal=False)]),
    ]
    return html.page(f"{', '.join(runs)} on {', '.join(tasks)}", sections)


def labels(records: Sequence[Record]) -> list[str]:
    """Short names that tell the runs apart: the optimizer; with the overrides that not all share; with the folder."""
    shared = set.intersection(*(set(record.overrides) for record in records))
    names = [record.learned for record in records]
    own = [
        [word for word in r.overrides if word not in shared and not word.startswith(CHOICE)]
        for r in records
    ]
    tries = [
        names,
        [" ".join([name, *words]) for name, words in zip(names, own, strict=True)],
        [f"{name} ({record.folder.name})" for name, record in zip(names, records, strict=True)],
    ]
    fitting = (
        found
        for found in tries
        if len(set(found)) == len(found) and max(map(len, found)) <= LONGEST
    )
    return next(
        fitting, [f"{name} ({record.folder})" for name, record in zip(names, records, strict=True)]
    )


def _of_task(runs: dict[str, Record], task: str) -> html.Section:
    own = {label: record for label, record in runs.items() if record.rows_of(task)}
    rows, curves = merged(own, task)
    return html.Section(f"Result: {task}", result(task, rows, curves, _verdicts(own, rows, task)))


def merged(runs: dict[str, Record], task: str) -> tuple[list[dict[str, Any]], dict[str, Curve]]:
    """Rows and curves of all runs on a task: the learned optimizers under their labels, then the baselines.

    A baseline that came out the same in several runs is there once, else once for each, with the run's label.
    """
    names = {
        (label, record.learned): label for label, record in runs.items()
    }  # (run, optimizer) -> what is shown
    kept: dict[str, list[dict[str, Any]]] = {}  # baselines
    for label, record in runs.items():
        rows = record.rows_of(task)
        for name in dict.fromkeys(row["optimizer"] for row in rows):
            own = [row for row in rows if row["optimizer"] == name]
            if name == record.learned:
                continue
            if not any(_same(own, there) for there in kept.values()):
                names[label, name] = f"{name} of {label}" if name in kept else name
                kept[names[label, name]] = own
    rows, curves = [], {}
    for (label, name), shown in names.items():
        rows += [
            {**row, "optimizer": shown}
            for row in runs[label].rows_of(task)
            if row["optimizer"] == name
        ]
        if name in (drawn := runs[label].curves.get(task, {})):
            curves[shown] = drawn[name]
    measured = set.intersection(*(set(row["heldout"]) for row in rows))
    return [
        {**row, "heldout": {key: row["heldout"][key] for key in row["heldout"] if key in measured}}
        for row in rows
    ], curves


def _same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    """Whether two baselines are one: name, learning rate, horizon, and the loss on every seed."""
    keys = ("optimizer", "horizon", "learning_rate", "seed")
    return len(left) == len(right) and all(
        all(a[key] == b[key] for key in keys) and _close(a["mean_loss"], b["mean_loss"])
        for a, b in zip(left, right, strict=True)
    )


def _close(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is right
    return abs(left - right) <= SAME * abs(left)


def _verdicts(runs: dict[str, Record], rows: list[dict[str, Any]], task: str) -> list[str]:
    """The first run against every other one by seeds, or why they cannot be compared."""
    questions = {label: _question(record, task) for label, record in runs.items()}
    first, *others = runs
    sentences = []
    for other in others:
        differ = [
            key for key in questions[first] if questions[first][key] != questions[other].get(key)
        ]
        if differ:
            values = "; ".join(
                f"{key} {questions[first][key]} and {questions[other].get(key)}" for key in differ
            )
            sentences.append(
                f"{first} and {other} cannot be compared by their numbers, their runs differ in {values}."
            )
        else:
            sentences += tables.verdicts(
                [row for row in rows if row["optimizer"] in (first, other)], first
            )
    alone, _ = merged({first: runs[first]}, task)
    return [*sentences, *tables.verdicts(alone, first)]


def _question(record: Record, task: str) -> dict[str, Any]:
    """What must be equal for losses to be comparable."""
    rows = [row for row in record.rows_of(task) if row["optimizer"] == record.learned]
    described = record.metadata.get("tasks", {}).get(task, {})
    return {**described, "horizon": rows[0]["horizon"], "number of held-out seeds": len(rows)}


def _meta_training(runs: dict[str, Record], tasks: list[str]) -> list[html.Section]:
    pictures = []
    for task in tasks:
        train, valid = (
            {label: record.metric(f"meta_loss/{split}", task) for label, record in runs.items()}
            for split in ("train", "valid")
        )
        if any(train.values()):
            figure, axes = plots.panel()
            plots.outer_panel(axes, train, valid, f"{task}, meta-training")
            pictures.append(
                html.picture(figure, f"Meta-loss on {task} over outer steps of {', '.join(runs)}.")
            )
    return [html.Section("Meta-training", [html.pictures(pictures)])] if pictures else []


def settings(record: Record) -> dict[str, str]:
    """The composed config as dotted key -> value."""
    return _flat(yaml.safe_load(record.config) or {}, "") if record.config else {}


def _flat(node: dict[str, Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def _side_by_side(columns: dict[str, dict[str, str]], hide_equal: bool = True) -> Markup:
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = [(key, *(column.get(key, "-") for column in columns.values())) for key in keys]
    shown = [row for row in rows if not hide_equal or len(set(row[1:])) > 1]
    return (
        html.facts(("setting", *columns), shown)
        if shown
        else html.note("Nothing: the configs are equal.")
    )

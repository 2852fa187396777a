"""A page that compares several runs, from their records alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from learned_opt.core.files import write_text
from learned_opt.evaluation import scores
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.verdicts import verdict_sentences
from learned_opt.reporting import numbers, plots, run_groups, sections
from learned_opt.reporting.comparison_sections import notes, setting_parts
from learned_opt.reporting.in_short import HEADING
from learned_opt.reporting.merged_runs import learned_names, merged
from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.run_report import descriptions_of, facts_of
from learned_opt.reporting.runs_over_seeds import OverSeeds, over_seeds
from learned_opt.reporting.sections import Drawing, Drawings, Part, Rows, Sentences
from learned_opt.reporting.tables import Table

FILE = "comparison.html"
GROUPS = """\
Runs that differ in nothing but their seed are one group. Of {num_groups} groups {shown}. A group's
loss on a held-out seed is the mean over its runs, diverged where one of them diverged; its brackets
are over held-out seeds. Baselines, what differs and the facts are those of its first run."""
LONGEST = 40  # characters of a label


def write_comparison_page(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page on several runs.

    Args:
        folders: run folders; the others are compared with the first.
        out: the file; ``comparison.html`` in the folder that all runs lie in by default.

    Raises:
        ValueError: a folder is given twice, is no run folder, or holds a damaged file.
    """
    paths = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, paths, strict=True):
        if paths.count(path) > 1:
            raise ValueError(f"runs must differ, but {folder} is given {paths.count(path)} times.")

    if out is None:
        # of the parents: the page of several runs lies beside them, in none of them
        shared = os.path.commonpath([path.parent for path in paths])
        out = Path(os.path.relpath(shared)) / FILE

    write_text(out, comparison_page([read_record(folder) for folder in folders]))
    return out


def comparison_page(records: Sequence[Record]) -> str:
    """The page: every task, meta-training, what differs between the configs, reproducibility."""
    runs = dict(zip(labels(records), records, strict=True))
    tasks = list(dict.fromkeys(task for record in records for task in record.tasks))
    missing = run_groups.counted({label: record.missing for label, record in runs.items()})

    title = f"{', '.join(runs)} on {', '.join(tasks)}"
    parts: dict[str, list[Part]] = {}
    is_grouped = len(runs) > run_groups.MANY
    if is_grouped:
        optimizers = dict.fromkeys(record.learned for record in records)
        title = f"{len(records)} runs of {', '.join(optimizers)} on {', '.join(tasks)}"
        runs = run_groups.best_groups(records)
        num_groups = len(set(run_groups.group_names(records)))
        shown = f"the {len(runs)} of the lowest final loss are compared here, the best first"
        parts["Groups"] = [GROUPS.format(num_groups=num_groups, shown=shown)]

    compared = [task for task in tasks if _of_those_with(runs, task)]
    if compared:
        lines = []
        for task in compared:
            lines += _over_seeds(runs, task).sentences
            lines += _lowest(runs, task)
        parts[HEADING] = [Sentences(lines)]
    if missing:
        parts["What is missing"] = [Sentences(missing, stands_out=True)]

    for task in compared:
        parts[f"Result: {task}"] = _of_task(runs, task)

    parts |= _meta_training(runs, tasks)
    configs = {label: settings(record) for label, record in runs.items()}
    parts["What differs"] = [_side_by_side(configs, hide_equal=True)]
    facts = {label: facts_of(record) for label, record in runs.items()}
    parts["Reproducibility"] = [_side_by_side(facts, hide_equal=False)]

    if is_grouped:
        parts["All runs"] = [Rows(run_groups.table_of_runs(records, tasks), words=True)]

    return sections.page(title, parts)


def labels(records: Sequence[Record]) -> list[str]:
    """Short names that tell the runs apart.

    The optimizer; with the overrides that not all share; with the folder's name; with its path.
    """
    shared = set.intersection(*(set(record.overrides) for record in records))
    optimizers = []
    with_overrides = []
    with_folder = []
    with_path = []
    for record in records:
        words = []
        for word in record.overrides:
            if word not in shared and not word.startswith(run_groups.CHOICE):
                words.append(word)

        optimizers.append(record.learned)
        with_overrides.append(" ".join([record.learned, *words]))
        with_folder.append(f"{record.learned} ({record.folder.name})")
        with_path.append(f"{record.learned} ({record.folder})")

    for names in (optimizers, with_overrides, with_folder):
        if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST:
            return names

    return with_path


def _lowest(runs: dict[str, Record], task: str) -> list[str]:
    """Of every horizon, the lowest final loss of the runs beside that of the baselines."""
    of_task = _of_those_with(runs, task)
    frame, _ = merged(of_task, task)
    reference = next(record.results.reference for record in of_task.values() if record.results)
    learned = learned_names(of_task)

    lines = []
    for horizon in distinct(frame, "horizon"):
        summaries = scores.summarise(select(frame, horizon=horizon), reference)
        ours = [summary for summary in summaries if summary["optimizer"] in learned]
        others = [summary for summary in summaries if summary["optimizer"] not in learned]
        words = [_least(ours, "of the runs")] if ours else []
        if others:
            words.append(_least(others, "of the baselines"))
        lines.append(f"{task}, horizon {horizon}: lowest final loss {', '.join(words)}")
    return lines


def _least(summaries: list[dict[str, Any]], whose: str) -> str:
    least = min(summaries, key=lambda summary: summary["final_loss"].mean)
    return f"{whose} {numbers.interval(least['final_loss'])} ({least['optimizer']})"


def _of_task(runs: dict[str, Record], task: str) -> list[Part]:
    """Verdicts, then for each horizon a table and pictures."""
    of_task = _of_those_with(runs, task)
    frame, curves = merged(of_task, task)
    reference = next(record.results.reference for record in of_task.values() if record.results)

    # what holds over meta-seeds stands above the single runs that it is made of
    parts: list[Part] = list(_over_seeds(runs, task).parts)
    parts.append(Sentences(_verdicts(of_task, frame, task)))
    for horizon in distinct(frame, "horizon"):
        summaries = scores.summarise(select(frame, horizon=horizon), reference)
        losses = curves.get((task, horizon), {})
        # the verdicts stand on top, once for all horizons
        parts += setting_parts(f"{task}, horizon {horizon}", summaries, losses, [])[1:]

    return [*parts, *notes(reference)]


def _over_seeds(runs: Mapping[str, Record], task: str) -> OverSeeds:
    of_task = _of_those_with(runs, task)
    questions = [_question(record, task) for record in of_task.values()]
    if any(question != questions[0] for question in questions):
        return OverSeeds([], [])  # their numbers cannot be put together

    frame, _ = merged(of_task, task)
    reference = next(record.results.reference for record in of_task.values() if record.results)
    return over_seeds(of_task, frame, task, reference)


def _of_those_with(runs: Mapping[str, Record], task: str) -> dict[str, Record]:
    return {label: record for label, record in runs.items() if _has(record, task)}


def _has(record: Record, task: str) -> bool:
    return task in distinct(record.frame, "task")


def _verdicts(runs: dict[str, Record], frame: pd.DataFrame, task: str) -> list[str]:
    """The first run against every other one by seeds, or why they cannot be compared."""
    questions = {label: _question(record, task) for label, record in runs.items()}
    first, *others = runs
    shown_names = distinct(frame, "optimizer")

    sentences = []
    for other in others:
        differing = []
        for key, value in questions[first].items():
            if value != questions[other].get(key):
                differing.append(f"{key} {value} and {questions[other].get(key)}")

        if differing:
            sentences.append(
                f"{first} and {other} cannot be compared by their numbers, their runs differ in "
                f"{'; '.join(differing)}."
            )
        elif {first, other} <= set(shown_names):
            pair = [select(frame, optimizer=name) for name in (first, other)]
            sentences += verdict_sentences(pd.concat(pair), [first])

    results = runs[first].results
    if results is not None:
        # merged anew, without the baselines of the other runs
        alone, _ = merged({first: runs[first]}, task)
        shown = [first] if len(results.learned) == 1 else results.learned
        for horizon in distinct(alone, "horizon"):
            sentences += verdict_sentences(select(alone, horizon=horizon), shown)

    return sentences


def _question(record: Record, task: str) -> dict[str, Any]:
    """What must be equal for losses to be comparable."""
    rows = select(record.frame, task=task)
    horizons = distinct(rows, "horizon")
    return {
        **descriptions_of(record).get(task, {}),
        "horizon": ", ".join(map(str, horizons)),
        "number of held-out seeds": len(distinct(rows, "seed")),
    }


def _meta_training(runs: dict[str, Record], tasks: list[str]) -> dict[str, list[Part]]:
    drawings = []
    for task in tasks:
        train = {label: record.metric("meta_loss/train", task) for label, record in runs.items()}
        valid = {label: record.metric("meta_loss/valid", task) for label, record in runs.items()}
        if any(train.values()):
            drawing, axes = plots.panel()
            plots.outer_panel(axes, train, valid, f"{task}, meta-training")
            alt = f"Meta-loss on {task} over outer steps of {', '.join(runs)}."
            drawings.append(Drawing(drawing, alt))

    return {"Meta-training": [Drawings(drawings)]} if drawings else {}


def settings(record: Record) -> dict[str, str]:
    """The composed config as dotted key -> value."""
    return _flat(yaml.safe_load(record.config) or {}, "") if record.config else {}


def _flat(node: Mapping[str, Any], prefix: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = str(value)
    return values


def _side_by_side(columns: dict[str, dict[str, str]], *, hide_equal: bool) -> Part:
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = []
    for key in keys:
        values = [column.get(key, "-") for column in columns.values()]
        if not hide_equal or len(set(values)) > 1:
            rows.append([key, *values])

    if not rows:
        return "Nothing: the configs are equal."
    return Rows(Table(["setting", *columns], rows), words=True)

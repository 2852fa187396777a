"""Many runs as few groups: those that differ in nothing but their seed are one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from learned_opt.evaluation.curves import Curves
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.results import SETTING, Results
from learned_opt.reporting import numbers
from learned_opt.reporting.record import Record
from learned_opt.reporting.tables import Table

MANY = 8  # runs, or groups, that a page can show side by side
LONGEST = 32  # characters of a group's name in a legend
SEED = "seed="  # the override over whose values is averaged
CHOICE = "meta_optimizer="  # the override that a learned optimizer's name repeats


def group_names(records: Sequence[Record]) -> list[str]:
    """For each run the name of its group: the optimizer and the overrides that tell it apart.

    A key goes by its last part where that is the key of no other override.
    """
    shared = set.intersection(*(set(record.overrides) for record in records))

    names = []
    for record in records:
        words = []
        for word in record.overrides:
            if word not in shared and not word.startswith((SEED, CHOICE)):
                words.append(_brief(word, records))
        names.append(" ".join([record.learned, *words]))
    return names


def _brief(word: str, records: Sequence[Record]) -> str:
    last = word.split("=")[0].rpartition(".")[2]
    keys = {other.split("=")[0] for record in records for other in record.overrides}
    namesakes = [key for key in keys if key.rpartition(".")[2] == last]
    return word if len(namesakes) > 1 else word[len(word.split("=")[0]) - len(last) :]


def best_groups(records: Sequence[Record]) -> dict[str, Record]:
    """Name and number of runs -> one record for each group; no more than a page can show.

    Args:
        records: of all runs.

    Returns:
        dict[str, Record]: those of the lowest final loss, the best first.
    """
    members: dict[str, list[Record]] = {}
    for name, record in zip(group_names(records), records, strict=True):
        members.setdefault(name, []).append(record)

    groups = {}
    for i, (name, group) in enumerate(members.items()):
        short = name if len(name) <= LONGEST else f"{name[:LONGEST]}... ({i})"
        label = f"{short} ({len(group)} runs)" if len(group) > 1 else short
        groups[label] = _mean_record(label, group)

    order = sorted(groups, key=lambda label: _final_loss(groups[label]))
    return {label: groups[label] for label in order[:MANY]}


def _mean_record(label: str, group: Sequence[Record]) -> Record:
    """A record whose loss on a held-out seed is the mean over the runs of a group."""
    first = group[0]
    evaluated = [record.results for record in group if record.results]
    if len(group) == 1 or not evaluated:
        return first

    frames = []
    curves: Curves = {}
    for results in evaluated:
        is_learned = results.frame["optimizer"].isin(results.learned)
        frames.append(results.frame.loc[is_learned].assign(optimizer=label))
        for setting, losses in results.curves.items():
            for name in results.learned:
                if name in losses:
                    kept = curves.setdefault(setting, {})
                    kept[label] = _beside(kept.get(label), losses[name])

    # the baselines do not depend on the seed of meta-training: those of the first run stand for all
    is_baseline = ~evaluated[0].frame["optimizer"].isin(evaluated[0].learned)
    baselines = evaluated[0].frame.loc[is_baseline]
    for setting, losses in evaluated[0].curves.items():
        others = {name: values for name, values in losses.items() if name in set(_names(baselines))}
        curves[setting] = {**curves.get(setting, {}), **others}

    results = Results(
        reference=evaluated[0].reference,
        learned=[label],
        facts=evaluated[0].facts,
        frames=[pd.concat([_mean_rows(pd.concat(frames)), baselines], ignore_index=True)],
        curves=curves,
        described=evaluated[0].described,
    )
    return replace(first, results=results, metrics=_mean_metrics(group), missing=[])


def _names(frame: pd.DataFrame) -> list[str]:
    return distinct(frame, "optimizer")


def _beside(left: np.ndarray | None, right: np.ndarray) -> np.ndarray:
    """Curves ``(T, M)`` of several runs side by side."""
    return right if left is None else np.concatenate([left, right], axis=1)


def _mean_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each held-out seed; infinite where a run of the group diverged on it."""
    keys = [*SETTING, "optimizer", "seed"]
    how = {}
    for column in frame.columns:
        if column not in keys:
            is_number = pd.api.types.is_numeric_dtype(frame[column])
            how[column] = "mean" if is_number and column != "diverged" else "first"
    how["diverged"] = "any"

    grouped = frame.groupby(keys, sort=False, as_index=False)
    return pd.DataFrame(grouped.agg(how)).reindex(columns=frame.columns)


def _mean_metrics(group: Sequence[Record]) -> pd.DataFrame:
    tables = [record.metrics for record in group if len(record.metrics)]
    if not tables:
        return pd.DataFrame()
    joined = pd.concat(tables)
    return pd.DataFrame(joined.groupby("step", as_index=False).mean(numeric_only=True))


def _final_loss(record: Record) -> float:
    """Mean final loss of the learned optimizers; infinite where nothing was evaluated."""
    frame = record.frame
    learned = record.results.learned if record.results else []
    rows = frame.loc[frame["optimizer"].isin(learned)]
    return float(rows["final_loss"].mean()) if len(rows) else math.inf


def table_of_runs(records: Sequence[Record], tasks: Sequence[str]) -> Table:
    """A line for every run: its group, and its mean final loss on each task."""
    lines = []
    for name, record in zip(group_names(records), records, strict=True):
        losses = [_loss_on(record, task) for task in tasks]
        lines.append([record.folder.name, name, *losses])
    return Table(["run", "group", *(f"final loss on {task}" for task in tasks)], lines)


def _loss_on(record: Record, task: str) -> str:
    rows = select(record.frame, task=task)
    learned = record.results.learned if record.results else []
    losses = rows.loc[rows["optimizer"].isin(learned)]["final_loss"]
    if not len(losses):
        return numbers.ABSENT
    return numbers.number(float(losses.mean()))


def counted(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """What several runs lack, a line for each sentence.

    Args:
        missing: run -> sentences.

    >>> counted({"a": ["no theta"], "b": ["no theta"]})
    ['a, b: no theta']
    """
    runs_of: dict[str, list[str]] = {}
    for run, sentences in missing.items():
        for sentence in sentences:
            runs_of.setdefault(sentence, []).append(run)

    lines = []
    for sentence, runs in runs_of.items():
        names = ", ".join(runs) if len(runs) <= MANY else f"{len(runs)} runs, first {runs[0]}"
        lines.append(f"{names}: {sentence}")
    return lines

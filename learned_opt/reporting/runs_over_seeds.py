"""Runs of a sweep that differ in their seed alone are meta-trainings of one optimizer."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from learned_opt.evaluation import meta_seeds
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.results import MetaTraining
from learned_opt.evaluation.scores import reference_row
from learned_opt.reporting import meta_seed_tables
from learned_opt.reporting.record import Record
from learned_opt.reporting.run_groups import SEED, group_names
from learned_opt.reporting.sections import Part, Rows, Sentences


class OverSeeds(NamedTuple):
    """What is true of a kind of optimizer, as far as its meta-trainings tell.

    Args:
        sentences: for the top of a page.
        parts: tables and how they are made.
    """

    sentences: list[str]
    parts: list[Part]


def over_seeds(
    runs: Mapping[str, Record], frame: pd.DataFrame, task: str, reference: str
) -> OverSeeds:
    """Rows and sentences over meta-seeds; empty where no two runs differ in their seed alone.

    Args:
        runs: by their labels, all comparable on the task.
        frame: their merged rows on the task.
        task: its name.
        reference: the baseline that ``behind`` and ``ahead`` are about.
    """
    trainings = meta_trainings(runs)
    sentences: list[str] = []
    parts: list[Part] = []
    if not trainings:
        return OverSeeds(sentences, parts)

    for horizon in distinct(frame, "horizon"):
        rows = select(frame, horizon=horizon)
        setting = f"{task}, horizon {horizon}"
        summaries = meta_seeds.summarise(rows, trainings, reference)
        rival = reference_row(distinct(rows, "optimizer"), reference)
        verdicts = meta_seeds.verdicts(rows, trainings, [rival] if rival else [])

        sentences += [f"{setting}, {verdict}" for verdict in verdicts]
        caption = f"{setting}: over meta-seeds and held-out seeds"
        parts += [Rows(meta_seed_tables.meta_seed_table(summaries), caption), Sentences(verdicts)]

    return OverSeeds(sentences, [*parts, meta_seed_tables.NOTES])


def meta_trainings(runs: Mapping[str, Record]) -> dict[str, MetaTraining]:
    """Label of a run -> which meta-training of which optimizer it is.

    Only runs with one learned optimizer and a seed on the command line, in groups of two or more.
    """
    groups = dict(zip(runs, group_names(list(runs.values())), strict=True))
    seeds = {}
    for label, record in runs.items():
        seed_words = [word.removeprefix(SEED) for word in record.overrides if _is_seed(word)]
        alone = record.results is not None and len(record.results.learned) == 1
        if seed_words and alone:
            seeds[label] = int(seed_words[-1])

    sizes = Counter(groups[label] for label in seeds)
    trainings = {}
    for label, seed in seeds.items():
        if sizes[groups[label]] > 1:
            trainings[label] = MetaTraining(groups[label], seed)
    return trainings


def _is_seed(word: str) -> bool:
    return word.startswith(SEED) and word.removeprefix(SEED).isdigit()

"""Tuning runs that are kept: one Parquet file for each task, optimizer and horizon."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import torch

from learned_opt.core.files import write_whole

log = logging.getLogger(__name__)

KEYS = ("lr", "seed")
SCORES = ("mean_loss", "final_loss")
BEST_TEST_LOSS = "test_loss"  # one more score, of runs whose test loss was measured on their way


class Archive:
    """Scores of runs by learning rate and seed, on disk where it has a folder.

    The file is replaced as a whole after every addition, so that whoever is killed leaves the runs
    that were done. Its name ends with a hash of ``facts``; other facts are another file. A change
    of the code is none of the facts: delete the files of an optimizer whose code has changed.

    Args:
        folder: where archives lie; None to keep nothing.
        facts: what the runs depend on beside learning rate and seed, see
            ``tuning_facts.fingerprint``; kept in the file.
        scores: names of the columns beside learning rate and seed.

    Raises:
        OSError: a damaged file cannot be set aside.
    """

    def __init__(
        self, folder: Path | None, facts: Mapping[str, Any], scores: Sequence[str] = SCORES
    ) -> None:
        self.names = tuple(scores)
        self.facts = dict(facts)
        self.path = folder / file_name(facts) if folder else None

        rows = _read(self.path, self.names) if self.path and self.path.exists() else None
        if rows is None:
            lr = pd.Series(dtype="float64")
            seed = pd.Series(dtype="int64")
            rows = pd.DataFrame({"lr": lr, "seed": seed})
        self.rows = rows

    def missing(self, wanted: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
        """The pairs of learning rate and seed that have no run yet."""
        kept = set(zip(self.rows["lr"], self.rows["seed"], strict=True))
        return [pair for pair in wanted if pair not in kept]

    def add(self, rows: pd.DataFrame) -> None:
        """Add runs, columns ``lr``, ``seed`` and the scores, and write the file.

        Raises:
            OSError: the file cannot be written.
        """
        joined = rows if self.rows.empty else pd.concat([self.rows, rows])
        self.rows = joined.sort_values(list(KEYS), ignore_index=True)
        if self.path is None:
            return

        self.rows.attrs.update(self.facts)
        write_whole(self.path, self.rows.to_parquet(index=False))

    def scores(self, learning_rates: Sequence[float], num_seeds: int) -> dict[str, torch.Tensor]:
        """Score -> mean over the first seeds of each learning rate, ``(len(learning_rates),)``."""
        runs = self.rows.set_index(list(KEYS))
        wanted = [(lr, seed) for lr in learning_rates for seed in range(num_seeds)]

        means = {}
        for name in self.names:
            values = torch.tensor(runs[name].reindex(wanted).to_numpy())
            means[name] = values.unflatten(0, (-1, num_seeds)).mean(1)
        return means


def _read(path: Path, scores: Sequence[str]) -> pd.DataFrame | None:
    """The runs of a file; None where it is damaged, which is said, and the file set aside.

    Whoever asks may have meta-trained for hours: the runs are made again, and nothing is lost.
    """
    rows = pd.DataFrame()
    try:
        rows = pd.read_parquet(path)
        fault = _fault(rows, scores)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        fault = str(error).partition("\n")[0]

    if not fault:
        return rows

    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    log.warning(
        "the tuning runs in %s cannot be used (%s); the file is now %s, and they are made again.",
        path,
        fault.rstrip("."),
        aside.name,
    )
    return None


def _fault(rows: pd.DataFrame, scores: Sequence[str]) -> str:
    """What is wrong with a table of runs; empty where nothing is."""
    for name in (*KEYS, *scores):
        if name not in rows:
            return f"it has no column {name}"
        if not pd.api.types.is_numeric_dtype(rows[name]):
            return f"its column {name} holds no numbers"

    if not np.isfinite(rows["lr"]).all() or not pd.api.types.is_integer_dtype(rows["seed"]):
        return "its learning rates must be finite and its seeds whole numbers"
    if rows.duplicated(list(KEYS)).any():
        return "it has a run twice"
    return ""


def file_name(facts: Mapping[str, Any]) -> str:
    """The file of an archive: the task, for people, and a hash of all facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{facts['task']['task']}-{digest[:16]}.parquet"

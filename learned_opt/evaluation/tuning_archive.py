"""Tuning runs that are kept: one Parquet file for each task, optimizer and horizon."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from learned_opt.core.files import write_whole

KEYS = ("lr", "seed")
SCORES = ("mean_loss", "final_loss")


class Archive:
    """Scores of runs by learning rate and seed, on disk where it has a folder.

    The file is replaced as a whole after every addition, so that whoever is killed leaves the runs
    that were done. Its name ends with a hash of ``facts``; other facts are another file. A change
    of the code is none of the facts: delete the files of an optimizer whose code has changed.

    Args:
        folder: where archives lie; None to keep nothing.
        facts: what the runs depend on beside learning rate and seed, see
            ``tuning_facts.fingerprint``; kept in the file.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self.path = folder / file_name(facts) if folder else None

        if self.path and self.path.exists():
            self.rows = pd.read_parquet(self.path)
        else:
            lr = pd.Series(dtype="float64")
            seed = pd.Series(dtype="int64")
            self.rows = pd.DataFrame({"lr": lr, "seed": seed})

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
        for name in SCORES:
            values = torch.tensor(runs[name].reindex(wanted).to_numpy())
            means[name] = values.unflatten(0, (-1, num_seeds)).mean(1)
        return means


def file_name(facts: Mapping[str, Any]) -> str:
    """The file of an archive: the task, for people, and a hash of all facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{facts['task']['task']}-{digest[:16]}.parquet"

"""Tuning runs that are kept: one Parquet file for each task, optimizer and horizon."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.seeded_runs import FINAL_WINDOW
from learned_opt.inner.unroll import Unroll

KEYS = ("lr", "seed")
SCORES = ("mean_loss", "final_loss")


class Archive:
    """Scores of runs by learning rate and seed, on disk where it has a folder.

    The file is replaced as a whole after every addition, so that whoever is killed leaves what was done. Its name ends
    with a hash of ``facts``; other facts are another file. A change of the code is none of the facts: delete the
    files of an optimizer whose code has changed.

    Args:
        folder: where archives lie; None to keep nothing.
        facts: what the runs depend on beside learning rate and seed, see ``fingerprint``; kept in the file.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any]) -> None:
        self.facts, digest = (
            dict(facts),
            hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        )
        self.path = folder / f"{facts['task']['task']}-{digest[:16]}.parquet" if folder else None
        self.rows = pd.DataFrame(
            {name: pd.Series(dtype="int64" if name == "seed" else "float64") for name in KEYS}
        )
        if self.path and self.path.exists():
            self.rows = pd.read_parquet(self.path)

    def missing(self, wanted: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
        """The pairs of learning rate and seed that have no run yet."""
        there = set(zip(self.rows["lr"], self.rows["seed"], strict=True))
        return [pair for pair in wanted if pair not in there]

    def add(self, rows: pd.DataFrame) -> None:
        """Add runs, columns ``lr``, ``seed`` and the scores, and write the file."""
        joined = rows if self.rows.empty else pd.concat([self.rows, rows])
        self.rows = joined.sort_values(list(KEYS), ignore_index=True)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows.attrs.update(self.facts)
        beside = self.path.with_suffix(f".{os.getpid()}.part")
        self.rows.to_parquet(beside, index=False)
        beside.replace(self.path)

    def scores(self, learning_rates: Sequence[float], num_seeds: int) -> dict[str, torch.Tensor]:
        """Score -> mean over the first seeds of each learning rate."""
        own = self.rows.set_index(list(KEYS))
        wanted = [(lr, seed) for lr in learning_rates for seed in range(num_seeds)]
        runs = {name: torch.tensor(own[name].reindex(wanted).to_numpy()) for name in SCORES}
        return {name: values.unflatten(0, (-1, num_seeds)).mean(1) for name, values in runs.items()}


def fingerprint(unroll: Unroll, constructor: Callable[..., Any], horizon: int) -> dict[str, Any]:
    """What tuning runs depend on, as JSON values: task, optimizer without its learning rate, horizon.

    A family's description leaves some things out (the sizes of a network, say), so the shapes of its parameters and the
    loss at a random point of them, to four digits, are part of it.

    Args:
        unroll: the inner loop of the optimizer.
        constructor: of the optimizer, a class or ``functools.partial`` of one.
        horizon: inner steps.

    Raises:
        ValueError: the constructor holds something that has no description.
    """
    family, key, source = (
        unroll.family,
        ("tune", "fingerprint"),
        generator("tune", "fingerprint", "point"),
    )
    chains = unroll.start([key])
    task, params = (
        tree.tree_map(lambda leaf: leaf[0], chains[part]) for part in ("task", "params")
    )
    batch = tree.tree_map(lambda leaf: leaf[0, 0], unroll.batches([key], chains, 1))
    elsewhere = {
        n: p + 0.1 * torch.randn(p.shape, generator=source).to(p) for n, p in params.items()
    }
    with torch.no_grad():
        loss = family.loss(elsewhere, batch, task).item()
    return {
        "task": family.describe(),
        "shapes": {name: list(param.shape) for name, param in params.items()},
        "loss": f"{loss:.3e}",
        "optimizer": describe(constructor),
        "horizon": horizon,
        "final_window": FINAL_WINDOW,
        "precision": unroll.precision,
    }


def describe(value: Any) -> Any:
    """What a constructor and its arguments are, as JSON values; a learning rate at the top is left out.

    Raises:
        ValueError: a part has no name that another process would find it by, and is no plain value.
    """
    if isinstance(value, partial):
        named = {name: describe(own) for name, own in value.keywords.items() if name != "lr"}
        return {
            "call": describe(value.func),
            "args": [describe(own) for own in value.args],
            **named,
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "call": describe(type(value)),
            **{f.name: describe(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Mapping):
        return {str(name): describe(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [describe(own) for own in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", "<")
    if "<" in name:
        raise ValueError(
            f"an archive of tuning runs needs an optimizer that it can name, got {value!r}."
        )
    return f"{value.__module__}.{name}"

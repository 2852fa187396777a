"""A zoo on disk: shards of trained networks, each a table (Parquet) and their weights (safetensors).

The table of a shard is written last and holds the checksum of the weights: a shard with a table is whole, and a damaged
one is recognised.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import torch
from safetensors.torch import load, save
from torch import Tensor

from learned_opt.core import tree

FORMAT = 1  # version of the folder's layout
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Zoo:
    """Trained networks.

    Args:
        table: one row per network: ``model``, ``split``, ``success``, ``test_loss``, hyper-parameters.
        params: weights, leaves ``(num_networks, *shape)``, in the order of the table.
        broken: one sentence for each shard that was left out.
    """

    table: pd.DataFrame
    params: dict[str, Tensor]
    broken: list[str]

    def select(self, split: str) -> tuple[dict[str, Tensor], Tensor]:
        """Weights and success rates ``(n,)`` of a split; networks that diverged are left out."""
        rows = (self.table.split == split) & self.table.finite
        index = torch.tensor(rows.to_numpy().nonzero()[0])
        success = torch.tensor(self.table.success.to_numpy(), dtype=torch.float32)
        return {name: value[index] for name, value in self.params.items()}, success[index]


def settle(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder and note what its zoo is made of, or check that a zoo begun earlier is made of the same.

    Raises:
        ValueError: the folder holds a zoo of other settings; names them.
    """
    path = folder / "zoo.json"
    wanted = json.loads(json.dumps({"format": FORMAT, **settings}))
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    found = read_settings(folder)
    differ = [
        f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} here"
        for key in dict.fromkeys([*found, *wanted])
        if found.get(key) != wanted.get(key)
    ]
    if differ:
        raise ValueError(
            f"{folder} holds a zoo of other settings: {'; '.join(differ)}. Choose another folder."
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """What the zoo in a folder is made of.

    Raises:
        ValueError: there is no zoo, or its ``zoo.json`` is damaged.
    """
    path = folder / "zoo.json"
    if not path.is_file():
        raise ValueError(f"there is no zoo in {folder}; build one first.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error


def write_shard(folder: Path, shard: int, table: pd.DataFrame, params: dict[str, Tensor]) -> None:
    """Write a shard; an interruption leaves it either whole or absent."""
    weights, rows = _paths(folder, shard)
    data = save({name: value.contiguous() for name, value in params.items()})
    write_whole(weights, data)
    write_whole(
        rows,
        table.assign(shard=shard, sha256=hashlib.sha256(data).hexdigest()).to_parquet(index=False),
    )


def read_shard(folder: Path, shard: int) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Table and weights of a shard.

    Raises:
        ValueError: a file is missing or damaged; says which.
    """
    weights, rows = _paths(folder, shard)
    try:
        table, data = pd.read_parquet(rows), weights.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing") from error
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{rows} is damaged: {error}") from error
    if "sha256" not in table or (table.sha256 != hashlib.sha256(data).hexdigest()).any():
        raise ValueError(f"{weights} is damaged: its checksum is not the one in {rows.name}")
    return table, dict(sorted(load(data).items()))  # safetensors keeps no order


def read_zoo(folder: Path) -> Zoo:
    """All whole shards of a zoo; broken ones are named and left out.

    Raises:
        ValueError: no shard can be read.
    """
    tables, params, broken = [], [], []
    for rows in sorted(folder.glob("shard-*.parquet")):
        try:
            table, weights = read_shard(folder, int(rows.stem.removeprefix("shard-")))
        except ValueError as error:
            broken.append(str(error))
            continue
        tables.append(table)
        params.append(weights)
    if not tables:
        raise ValueError(
            f"no shard of the zoo in {folder} can be read{': ' if broken else ''}{'; '.join(broken)}."
        )
    joined = tree.tree_map(lambda *leaves: torch.cat(leaves), params[0], *params[1:])
    return Zoo(pd.concat(tables, ignore_index=True), joined, broken)


def split_of(models: list[int], num_models: int) -> list[str]:
    """The split of each network, which depends on its number and the size of the zoo alone."""
    order = torch.randperm(num_models, generator=torch.Generator().manual_seed(0)).tolist()
    valid, test = (round(num_models * SPLITS[name]) for name in ("valid", "test"))
    return [
        "test" if order[m] < test else "valid" if order[m] < test + valid else "train"
        for m in models
    ]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half done."""
    partial = path.with_suffix(path.suffix + ".part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _paths(folder: Path, shard: int) -> tuple[Path, Path]:
    return folder / f"shard-{shard:05d}.safetensors", folder / f"shard-{shard:05d}.parquet"

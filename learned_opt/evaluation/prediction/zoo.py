"""A zoo on disk: shards of trained networks, each a table (Parquet) and weights (safetensors).

The table of a shard is written last and holds the checksum of the weights: a shard with a table
is whole, and a damaged one is recognised.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from learned_opt.core.files import write_json, write_whole
from learned_opt.core.json_files import read_json
from learned_opt.core.tree import tree_map

FORMAT = 1  # version of the folder's layout
SPEC_TYPES = {"fixed": list, "views": dict, "reasons": dict, "fixed_sizes": dict}
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Zoo:
    """Trained networks with their weights and success.

    Args:
        table: one row per network: ``model``, ``split``, ``success``, ``test_loss``,
            hyper-parameters.
        params: weights, leaves ``(num_networks, *shape)``, in the order of the table.
        broken: one sentence for each shard that was left out.
    """

    table: pd.DataFrame
    params: dict[str, Tensor]
    broken: list[str]

    @property
    def num_axes(self) -> dict[str, int]:
        """Axes of one network's tensors, by name."""
        return {name: value.ndim - 1 for name, value in self.params.items()}

    def select(self, split: str) -> tuple[dict[str, Tensor], Tensor]:
        """Weights and success rates ``(n,)`` of a split; networks that diverged are left out."""
        rows = (self.table.split == split) & self.table.finite
        index = torch.tensor(rows.to_numpy().nonzero()[0])
        success = torch.tensor(self.table.success.to_numpy(), dtype=torch.float32)
        return {name: value[index] for name, value in self.params.items()}, success[index]


def settle(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder and note what its zoo is made of.

    Where a zoo was begun earlier, check that it is made of the same.

    Raises:
        ValueError: the folder holds a zoo of other settings, and names them; or its ``zoo.json``
            is damaged.
    """
    path = folder / "zoo.json"
    wanted = json.loads(json.dumps({"format": FORMAT, **settings}))  # tuples become lists
    if not path.is_file():
        write_json(path, wanted)
        return

    present = _content(path)
    differences = []
    for key in dict.fromkeys([*present, *wanted]):
        there, here = present.get(key), wanted.get(key)
        if there != here:
            differences.append(f"{key} is {there!r} there, {here!r} here")

    if differences:
        raise ValueError(
            f"{folder} holds a zoo of other settings: {'; '.join(differences)}. "
            "Choose another folder."
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """What the zoo in a folder is made of.

    Raises:
        ValueError: there is no zoo, or its ``zoo.json`` is damaged or of another format.
    """
    path = folder / "zoo.json"
    if not path.is_file():
        raise ValueError(f"there is no zoo in {folder}; build one first.")

    settings = _content(path)
    if settings.get("format") != FORMAT:
        raise ValueError(
            f"format in {path} must be {FORMAT}, it is {settings.get('format')!r:.40}."
        )
    for key in ("task", "recipe", "spec"):
        if not isinstance(settings.get(key), dict):
            raise ValueError(f"{key} in {path} must be an object.")
    if not _is_spec(settings["spec"]):
        raise ValueError(f"spec in {path} must be that of a PermutationSpec.")
    return settings


def _content(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold an object.")
    return settings


def _is_spec(spec: Mapping[str, Any]) -> bool:
    """Whether the arguments of a ``PermutationSpec`` have their types."""
    axes = spec.get("axes")
    if not isinstance(axes, dict) or set(spec) - {"axes", *SPEC_TYPES}:
        return False

    for key, kind in SPEC_TYPES.items():
        if not isinstance(spec.get(key, kind()), kind):
            return False
    return all(_is_list_of(names, str) for names in axes.values()) and _is_list_of(
        spec.get("fixed", []), str
    )


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def write_shard(
    folder: Path, shard: int, table: pd.DataFrame, params: Mapping[str, Tensor]
) -> None:
    """Write a shard; an interruption leaves it either whole or absent."""
    weights_file, table_file = _paths(folder, shard)
    weights = save({name: value.contiguous() for name, value in params.items()})
    checksum = hashlib.sha256(weights).hexdigest()

    write_whole(weights_file, weights)
    write_whole(table_file, table.assign(shard=shard, sha256=checksum).to_parquet(index=False))


def is_absent(folder: Path, shard: int) -> bool:
    """Whether a file of the shard is missing: it was never written to its end."""
    return not all(path.is_file() for path in _paths(folder, shard))


def read_shard(folder: Path, shard: int) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Table and weights of a shard.

    Raises:
        ValueError: a file is missing, damaged, or of something else; names it.
    """
    weights_file, table_file = _paths(folder, shard)
    try:
        table = pd.read_parquet(table_file)
        weights = weights_file.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing") from error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{table_file} is damaged: {error}") from error

    checksum = hashlib.sha256(weights).hexdigest()
    if "sha256" not in table or (table.sha256 != checksum).any():
        raise ValueError(
            f"{weights_file} is damaged: its checksum is not the one in {table_file.name}"
        )

    try:
        params = dict(sorted(load(weights).items()))  # safetensors keeps no order
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is damaged: {error}") from error
    if fault := _fault(table, params):
        raise ValueError(f"{table_file} is not a shard of a zoo: {fault}")
    return table, params


def _fault(table: pd.DataFrame, params: Mapping[str, Tensor]) -> str:
    """What is wrong with a shard; empty where nothing is."""
    for name in ("model", "split", "success", "test_loss", "finite"):
        if name not in table:
            return f"it has no column {name}"

    for name, value in params.items():
        if value.ndim == 0 or len(value) != len(table):
            return f"its {len(table)} rows do not fit {name} of shape {tuple(value.shape)}"

    if not set(table.split) <= set(SPLITS):
        return f"split must be one of {', '.join(SPLITS)}"
    if not pd.api.types.is_bool_dtype(table.finite):
        return "finite must hold truth values"
    if not pd.api.types.is_numeric_dtype(table.success):
        return "success must hold numbers"
    # of a network that diverged any success is possible, and it is left out
    is_finite = np.isfinite(table.success[table.finite]).all()
    return "" if is_finite else "success must be finite where finite says so"


def read_zoo(folder: Path) -> Zoo:
    """All whole shards of a zoo; broken ones are named and left out.

    Raises:
        ValueError: no shard can be read.
    """
    tables = []
    params = []
    broken = []
    for table_file in sorted(folder.glob("shard-*.parquet")):
        try:
            table, weights = read_shard(folder, _number(table_file))
            if params and _shapes(weights) != _shapes(params[0]):
                raise ValueError(f"the weights beside {table_file} are of other networks")
        except ValueError as error:
            broken.append(str(error))
            continue

        tables.append(table)
        params.append(weights)

    if not tables:
        reasons = f": {'; '.join(broken)}" if broken else ""
        raise ValueError(f"no shard of the zoo in {folder} can be read{reasons}.")

    joined = tree_map(lambda *leaves: torch.cat(leaves), params[0], *params[1:])
    return Zoo(pd.concat(tables, ignore_index=True), joined, broken)


def split_of(models: Sequence[int], num_models: int) -> list[str]:
    """The split of each network, which depends on its number and the size of the zoo alone.

    Args:
        models: numbers of the networks.
        num_models: size of the zoo.

    >>> split_of(range(10), 10).count("train")
    8
    """
    # the same order at every call: a zoo may be built in several sittings
    order = torch.randperm(num_models, generator=torch.Generator().manual_seed(0)).tolist()
    num_test = round(num_models * SPLITS["test"])
    num_valid = round(num_models * SPLITS["valid"])

    splits = []
    for model in models:
        position = order[model]
        if position < num_test:
            splits.append("test")
        else:
            splits.append("valid" if position < num_test + num_valid else "train")

    return splits


def _number(table_file: Path) -> int:
    number = table_file.stem.removeprefix("shard-")
    if not number.isdecimal() or table_file.stem != f"shard-{int(number):05d}":
        raise ValueError(f"{table_file} has no number of a shard")
    return int(number)


def _shapes(params: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape of one network's weights, by name."""
    return {name: (value.shape[1:], value.dtype) for name, value in params.items()}


def _paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """Files of the weights and of the table."""
    stem = f"shard-{shard:05d}"
    return folder / f"{stem}.safetensors", folder / f"{stem}.parquet"

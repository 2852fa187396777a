"""The zoo on disk: resumption and damage."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from learned_opt.core import tree
from learned_opt.evaluation.prediction.populate import Recipe, populate
from learned_opt.evaluation.prediction.zoo import (
    read_settings,
    read_shard,
    read_zoo,
    settle,
    split_of,
    write_shard,
)
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam
from tests.cases import FAMILIES, spec_of


def recipe(**changes) -> Recipe:
    values = {
        "num_models": 12,
        "shard_size": 4,
        "lowest_lr": 1e-3,
        "highest_lr": 1e-1,
        "batch_sizes": [3, 5],
        "num_steps": [2, 4],
        "success": "accuracy",
        "seed": 0,
    }
    return Recipe(**(values | changes))


def unroll_of(batch_size: int) -> Unroll:
    family = FAMILIES["mlp"]()
    family.batch_size = batch_size
    return Unroll(family, make_adam(spec_of(family)), compile=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A zoo that no test changes."""
    folder = tmp_path_factory.mktemp("zoo")
    populate(folder, recipe(), unroll_of, lambda line: None)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_zoo_is_the_same_however_often_it_is_interrupted(made, tmp_path) -> None:
    whole = read_zoo(made)
    pieces = tmp_path / "pieces"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            populate(pieces, recipe(), unroll_of, stop)
    again = read_zoo(pieces)
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert all(
        torch.equal(a, b)
        for a, b in zip(tree.leaves(again.params), tree.leaves(whole.params), strict=True)
    )
    assert whole.table.learning_rate.between(1e-3, 1e-1).all()
    assert whole.table.learning_rate.nunique() == len(whole.table) == 12


@pytest.mark.parametrize("damage", ["weights", "weights missing", "table"])
def test_a_broken_shard_is_left_out_named_and_trained_again(folder, damage) -> None:
    before = read_zoo(folder)
    weights = folder / "shard-00001.safetensors"
    rows = folder / "shard-00001.parquet"
    if damage == "weights":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1  # a single bit
        weights.write_bytes(data)
    elif damage == "weights missing":
        weights.unlink()
    else:
        rows.write_bytes(rows.read_bytes()[:50])
    zoo = read_zoo(folder)
    assert sorted(zoo.table.model) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len(zoo.broken) == 1
    assert "shard-00001" in zoo.broken[0]
    said = []
    populate(folder, recipe(), unroll_of, said.append)
    assert [line for line in said if "shard 2 of 3" in line]
    pd.testing.assert_frame_equal(read_zoo(folder).table, before.table)


def change_shard(folder, change) -> None:
    table, params = read_shard(folder, 1)
    table, params = change(table.drop(columns=["shard", "sha256"]), params)
    write_shard(folder, 1, table, params)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table, params: (pd.concat([table, table[:1]]), params), "its 5 rows do not fit"),
        (
            lambda table, params: (table.assign(success=float("nan")), params),
            "success must be finite where finite says",
        ),
        (lambda table, params: (table.assign(success="x"), params), "success must hold numbers"),
        (lambda table, params: (table.assign(finite=2), params), "finite must hold truth"),
        (lambda table, params: (table.assign(split="dev"), params), "split must be one of train"),
        (lambda table, params: (table.drop(columns="success"), params), "has no column success"),
        (
            lambda table, params: (table, {name: leaf[..., None] for name, leaf in params.items()}),
            "are of other networks",
        ),
    ],
)
def test_a_foreign_shard_is_left_out_and_named(folder, change, reason) -> None:
    change_shard(folder, change)
    zoo = read_zoo(folder)
    assert sorted(zoo.table.model) == [0, 1, 2, 3, 8, 9, 10, 11]
    (sentence,) = zoo.broken
    assert reason in sentence
    assert "shard-00001" in sentence


def test_a_file_that_is_no_shard_is_named(folder) -> None:
    (folder / "shard-best.parquet").write_bytes(b"")
    (folder / "shard-1.parquet").write_bytes(b"")
    assert [sentence.partition(" ")[2] for sentence in read_zoo(folder).broken] == [
        "has no number of a shard"
    ] * 2


SETTINGS = {"format": 1, "task": {}, "recipe": {}, "spec": {"axes": {}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "zoo.json is damaged"),
        ("[" * 200_000, "zoo.json is damaged: it is nested too deep"),
        ("[1]", "zoo.json must hold an object"),
        (json.dumps(SETTINGS | {"format": 2}), "format in .*zoo.json must be 1, it is 2"),
        (json.dumps(SETTINGS | {"recipe": 3}), "recipe in .*zoo.json must be an object"),
        (json.dumps(SETTINGS | {"spec": {"axes": [1]}}), "spec in .*zoo.json must be that of a P"),
        (json.dumps(SETTINGS | {"spec": {"axes": {"w": 1}}}), "spec in .*zoo.json must be that"),
        (json.dumps(SETTINGS | {"spec": {"axes": {}, "evil": 1}}), "spec in .*zoo.json must be"),
    ],
)
def test_a_damaged_or_foreign_description_is_one_sentence(tmp_path, content, message) -> None:
    (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path)


def test_a_folder_keeps_its_settings(tmp_path) -> None:
    settle(tmp_path / "zoo", {"recipe": {"seed": 0}})
    settle(tmp_path / "zoo", {"recipe": {"seed": 0}})
    with pytest.raises(
        ValueError, match=r"holds a zoo of other settings: recipe is {'seed': 0} there"
    ):
        settle(tmp_path / "zoo", {"recipe": {"seed": 1}})
    with pytest.raises(ValueError, match=r"no shard of the zoo in .* can be read"):
        read_zoo(tmp_path / "zoo")


def test_the_split_is_fixed_and_disjoint() -> None:
    split = split_of(list(range(100)), 100)
    assert [split.count(name) for name in ("train", "valid", "test")] == [80, 10, 10]
    assert split_of([7, 3], 100) == [split[7], split[3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_models": 13}, "multiple of shard_size 4, got 13"),
        ({"lowest_lr": 1.0}, "0 < lowest_lr < highest_lr must hold"),
        ({"batch_sizes": []}, r"batch_sizes must hold positive numbers, got \[\]"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
    ],
)
def test_bad_recipes(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)

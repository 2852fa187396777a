"""Data of every kind that people have, which rows are held out, and what cannot be trained on."""

from functools import partial

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from learned_opt.core.rng import generator
from tasks import ModuleTask
from tasks.module_data import InMemory

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)
LINEAR = partial(nn.Linear, 3, 1)
NAMES = {"inputs": ["a", "b", "c"], "targets": ["y"]}
TABLE = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y[:, 0]}


class Items(Dataset):
    """A map-style data set of arrays of float64."""

    def __len__(self):
        return 20

    def __getitem__(self, row):
        return X[row].double().numpy(), Y[row].double().numpy()


class Rows(Dataset):
    """A map-style data set of dicts."""

    def __len__(self):
        return 20

    def __getitem__(self, row):
        return {name: column[row].item() for name, column in TABLE.items()}


def csv(folder):
    path = folder / "table.csv"
    datasets.Dataset.from_dict({k: v.tolist() for k, v in TABLE.items()}).to_csv(path)
    return path


def parquet(folder):
    path = folder / "table.parquet"
    datasets.Dataset.from_dict({k: v.tolist() for k, v in TABLE.items()}).to_parquet(path)
    return str(path)


KINDS = {
    "tensors": (lambda _: (X, Y), {}),
    "arrays": (lambda _: (X.double().numpy(), Y.double().numpy()), {}),
    "tensor data set": (lambda _: TensorDataset(X, Y), {}),
    "dict": (lambda _: {"x": X, "y": Y}, {"inputs": "x", "targets": "y"}),
    "dict of columns": (lambda _: TABLE, NAMES),
    "argument by name": (
        lambda _: {"x": X, "y": Y},
        {"inputs": {"input": "x"}, "targets": "y"},
    ),
    "items": (lambda _: Items(), {}),
    "rows": (lambda _: Rows(), NAMES),
    "hub": (lambda _: datasets.Dataset.from_dict({k: v.numpy() for k, v in TABLE.items()}), NAMES),
    "hub vectors": (
        lambda _: datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()}),
        {"inputs": "x", "targets": "y"},
    ),
    "csv": (csv, NAMES),
    "parquet": (parquet, NAMES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_same_losses(kind, tmp_path) -> None:
    make, names = KINDS[kind]
    task = ModuleTask(LINEAR, functional.mse_loss, make(tmp_path), batch_size=5, **names)
    plain = ModuleTask(LINEAR, functional.mse_loss, (X, Y), batch_size=5)

    params = plain.init(generator(0), {})
    batch = plain.batch(generator(1), {})
    torch.testing.assert_close(task.loss(params, batch, {}), plain.loss(params, batch, {}))
    torch.testing.assert_close(task.evaluate(params, {}), plain.evaluate(params, {}))
    assert task.rows("test").shape == (4, 4)


def test_images_of_the_hub_are_pixels() -> None:
    source = np.random.default_rng(0)
    pictures = [Image.fromarray(source.integers(256, size=(4, 5, 3), dtype="uint8")) for _ in X]
    data = datasets.Dataset.from_dict({"picture": pictures, "label": [0, 1] * 10})
    data = data.cast_column("picture", datasets.Image())
    module = nn.Sequential(nn.Flatten(), nn.Linear(60, 2))
    task = ModuleTask(
        module, functional.cross_entropy, data, inputs="picture", targets="label", batch_size=4
    )
    columns = task.train.source.columns
    expected = torch.tensor(np.array(pictures[3])).permute(2, 0, 1) / 255
    torch.testing.assert_close(columns["picture"][3], expected)
    assert columns["label"].dtype == torch.int64
    assert task.evaluate(task.init(generator(0), {}), {}).keys() == {"accuracy", "test_loss"}


def test_parts_have_no_row_in_common() -> None:
    task = ModuleTask(LINEAR, functional.mse_loss, (X, Y), valid_fraction=0.25, batch_size=64)
    assert (task.num_train, task.num_valid, len(task.test.rows)) == (12, 4, 4)
    rows = {"test": set(task.test.rows.tolist())}
    for split in task.splits:
        rows[split] = set(task.batch(generator(0, split), {}, split)["index"].tolist())
    assert len(rows["train"]) == 12
    assert len(rows["valid"]) == 4
    assert len(rows["train"] | rows["valid"] | rows["test"]) == 20


def test_a_part_that_is_there_is_held_out() -> None:
    part = datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()})
    splits = datasets.DatasetDict({"train": part, "test": part.select(range(3))})
    by_name = {"inputs": "x", "targets": "y"}
    assert ModuleTask(LINEAR, nn.MSELoss(), splits, **by_name).describe()["num_test"] == 3
    with_test = ModuleTask(LINEAR, nn.MSELoss(), (X, Y), test=(X[:5], Y[:5]))
    assert with_test.describe()["num_test"] == 5
    assert with_test.describe()["num_train"] == 20


def test_a_source_of_another_kind_draws_its_rows_outside_of_the_loss() -> None:
    class OnDisk(InMemory):
        def draw(self, rows):
            return {name: column[rows] for name, column in self.columns.items()}

        def gather(self, batch):
            return {name: batch[name] for name in self.columns}

    data = OnDisk("disk", {"0": X, "1": Y})
    task = ModuleTask(LINEAR, functional.mse_loss, data, batch_size=5)
    plain = ModuleTask(LINEAR, functional.mse_loss, (X, Y), batch_size=5)
    params = plain.init(generator(0), {})
    drawn = task.batch(generator(1), {})
    assert drawn["0"].shape == (5, 3)
    expected = plain.loss(params, plain.batch(generator(1), {}), {})
    assert torch.equal(task.loss(params, drawn, {}), expected)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


BAD = torch.tensor([[0.0], [torch.nan], [1.0]]).repeat(5, 1)
LABELS = torch.tensor([0, 1, 2, 3] * 5)
CLASSES = partial(nn.Linear, 3, 3)
TEXT = datasets.Dataset.from_dict({"x": X.tolist(), "colour": ["red", "blue"] * 10})
RAGGED = datasets.Dataset.from_dict({"x": [[1.0, 2.0], [1.0]]})
MISTAKES = {
    "no data": (LINEAR, None, {}, "data must be there"),
    "empty": (LINEAR, (X[:0], Y[:0]), {}, "data must have at least one row, got column '0'"),
    "nan": (LINEAR, (X[:15], BAD), {}, "column '1' of data must hold finite numbers, got nan in"),
    "lengths": (LINEAR, (X, Y[:4]), {}, "must have as many rows, got: '0' 20, '1' 4"),
    "complex": (LINEAR, (X + 0j, Y), {}, "column '0' of data must be real"),
    "column": (
        LINEAR,
        {"x": X, "y": Y},
        {"inputs": "x", "targets": "z"},
        "data lack the column 'z'; they have: x, y",
    ),
    "no names": (LINEAR, {"x": X, "y": Y}, {}, "inputs and targets must name columns of data"),
    "targets alone": (LINEAR, {"y": Y}, {"targets": "y"}, "name those of inputs too"),
    "text": (
        LINEAR,
        TEXT,
        {"inputs": "x", "targets": "colour"},
        "column 'colour' of data must hold numbers in every row, .* got 'red'",
    ),
    "ragged": (LINEAR, RAGGED, {"inputs": "x"}, "column 'x' of data must"),
    "file": (LINEAR, "nowhere/table.csv", {}, "there is no file .*nowhere/table.csv"),
    "loader": (LINEAR, DataLoader(TensorDataset(X, Y)), {}, "give its loader.dataset"),
    "stream": (LINEAR, Stream(), {}, "whose rows have numbers, got Stream"),
    "labels": (
        CLASSES,
        (X, LABELS),
        {},
        "its loss fails: Target 3 is out of bounds; column '1' has 0 to 3",
    ),
    "held-out labels": (
        CLASSES,
        (X, LABELS % 3),
        {"test": (X, LABELS)},
        "Target 3 is out of bounds",
    ),
    "tokens": (
        partial(nn.Embedding, 3, 1),
        (LABELS, Y),
        {},
        "module Embedding fails: index out of range in self; column '0' has 0 to 3",
    ),
    "other columns": (LINEAR, (X, Y), {"test": (X[:, :2], Y)}, "test must have the columns of"),
    "fraction": (LINEAR, (X, Y), {"test_fraction": 1.5}, "test_fraction must lie between 0 and 1"),
    "both": (LINEAR, (X, Y), {"test_fraction": 0.5, "test": (X, Y)}, "got both"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_data_is_one_sentence(name) -> None:
    module, data, settings, message = MISTAKES[name]
    is_class = module is CLASSES
    loss = functional.cross_entropy if is_class else functional.mse_loss
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refusal:
        ModuleTask(module, loss, data, **settings)
    assert "\n" not in str(refusal.value)

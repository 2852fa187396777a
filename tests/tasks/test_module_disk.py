"""Data that stay on the disk: the same numbers as in memory, checked alike, in bounded memory."""

import copy
import json
import os
import re
import subprocess
import sys
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch import nn

import learned_opt
from learned_opt.core.rng import generator
from learned_opt.estimators.pes import PES
from learned_opt.optimizers.controller import AdamController
from tasks import ModuleTask, module_disk, module_memory
from tasks.module_disk import OnDisk
from tasks.module_reading import read

SIZE = 6  # pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where files are kept; blocks are small, so that there are several."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module_disk, "BLOCK", 16)
    datasets.disable_progress_bars()
    yield tmp_path / "cache" / module_disk.FOLDER
    module_disk._mapped.cache_clear()


@pytest.fixture
def pictures() -> Dataset:
    """Fifty pictures with a label and a number each."""
    random = np.random.default_rng(0)
    images = [
        Pillow.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        for _ in range(50)
    ]
    columns = {
        "image": images,
        "label": random.integers(0, 3, 50).tolist(),
        "weight": random.normal(size=50).astype(np.float32).tolist(),
    }
    features = Features({"image": Image(), "label": Value("int64"), "weight": Value("float32")})
    return Dataset.from_dict(columns, features)


def classifier(data: Dataset, **settings) -> ModuleTask:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 3))
    loss = nn.CrossEntropyLoss()
    return ModuleTask(module, loss, data, inputs="image", targets="label", batch_size=8, **settings)


def test_batches_have_the_bits_of_those_in_memory(pictures) -> None:
    in_memory = read(pictures, None, True)["train"]
    on_disk = read(pictures, None, False)["train"]
    rows = torch.tensor([49, 0, 17, 17, 31])
    expected = in_memory.gather(in_memory.draw(rows))
    columns = on_disk.gather(on_disk.draw(rows))

    assert list(columns) == list(expected)
    for name, column in columns.items():
        assert column.dtype == expected[name].dtype
        assert torch.equal(column, expected[name])
    assert isinstance(on_disk, OnDisk)
    assert on_disk.name == f"{in_memory.name} (on disk)"
    assert len(on_disk) == len(in_memory)
    assert on_disk.telling_rows().tolist() == in_memory.telling_rows().tolist()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_meta_training_gives_the_same_bits(pictures, compiled) -> None:
    estimator = partial(PES, num_tasks=2, unroll_length=2, sigma=0.03)
    thetas = []
    for in_memory in (True, False):
        task = classifier(pictures, in_memory=in_memory, valid_fraction=0.2)
        trained = learned_opt.meta_train(
            task, AdamController, estimator, steps=2, horizon=4, compile=compiled
        )
        figures = task.evaluate(task.init(generator("x"), {}), {})
        thetas.append((trained.theta, figures))

    (first, first_figures), (second, second_figures) = thetas
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert first_figures == second_figures


def test_columns_are_joined_as_in_memory(pictures) -> None:
    batches = []
    for in_memory in (True, False):
        task = ModuleTask(
            nn.Linear(3 * SIZE**2 + 1, 1),
            lambda outputs, targets: ((outputs[:, 0] - targets) ** 2).mean(),
            pictures,
            inputs=["weight", "image"],
            targets="label",
            in_memory=in_memory,
        )
        batches.append(task.train.gather(torch.arange(5)))
    first, second = batches
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_facts_tell_where_data_lie(pictures) -> None:
    facts = classifier(pictures, in_memory=False).describe()
    assert facts["data"] == "Dataset (on disk)"
    assert classifier(pictures).describe()["data"] == "Dataset"


def test_auto_goes_by_the_free_memory(pictures, monkeypatch) -> None:
    floats = 50 * (4 * 3 * SIZE**2 + 8)  # bytes of image and label
    for free, is_on_disk in ((2 * floats - 1, True), (2 * floats, False)):
        monkeypatch.setattr(module_memory, "free_bytes", lambda free=free: free)
        source = classifier(pictures).train.source
        assert isinstance(source, OnDisk) == is_on_disk


def test_free_memory_is_that_of_the_container(monkeypatch, tmp_path) -> None:
    for name, text in (("LIMIT", "3000\n"), ("USED", "1000\n"), ("MEMORY", "MemAvailable: 9 kB\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(module_memory, name, tmp_path / name)
    assert module_memory.free_bytes() == 2000
    (tmp_path / "LIMIT").write_text("max\n")
    assert module_memory.free_bytes() == 9 * 1024


def test_files_are_written_once(pictures, cache) -> None:
    first = read(pictures, ["label"], False)["train"]
    (folder,) = cache.iterdir()
    written = (folder / "0.npy").stat().st_mtime_ns
    again = read(pictures, ["label"], False)["train"]
    assert (folder / "0.npy").stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert list(cache.iterdir()) == [folder]

    others = pictures.select(range(1, 50))
    assert read(others, ["label"], False)["train"].fingerprint != first.fingerprint


def test_a_copy_of_the_task_reads_nothing(pictures) -> None:
    task = classifier(pictures, in_memory=False)
    task.batch(generator("x"), {})
    assert not any(isinstance(value, np.ndarray) for value in vars(task.train.source).values())
    copied = copy.deepcopy(task)
    assert copied.describe() == task.describe()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_tables(tmp_path, suffix) -> None:
    table = Dataset.from_dict({"x": [0.5, 1.5, 2.5] * 20, "y": [1, 2, 3] * 20})
    path = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        table.to_csv(path)
    else:
        table.to_parquet(path)

    source = read(str(path), ["x", "y"], False)["train"]
    columns = source.gather(source.draw(torch.tensor([58, 2])))
    assert columns["x"].tolist() == [1.5, 2.5]
    assert columns["y"].tolist() == [2, 3]
    assert source.name == f"table{suffix} (on disk)"


def bad(column: list) -> Dataset:
    return Dataset.from_dict({"x": column, "y": [0] * len(column)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bad([1.0] * 20 + [float("nan")]), "must hold finite numbers, got nan in row 20"),
        (bad([[1.0, 2.0]] * 16 + [[1.0]] * 4), "column 'x' of data must have rows of one shape"),
        (bad([[1.0], [1.0, 2.0]]), "column 'x' of data must hold numbers in every row, all of"),
        (bad([]), "data must have at least one row"),
        (bad(["a"]), "column 'x' of data must hold numbers"),
        (torch.zeros(4, 1), "in_memory=false is for a datasets.Dataset"),
    ],
)  # fmt: skip
def test_bad_data_are_refused_before_anything_runs(data, message, cache) -> None:
    with pytest.raises(ValueError, match=message):
        read(data, None, False)
    assert not cache.exists() or not list(cache.iterdir())


def test_pictures_of_two_sizes_are_refused(pictures) -> None:
    rows = pictures[:20]
    rows["image"][18] = Pillow.new("RGB", (SIZE + 1, SIZE))
    data = Dataset.from_dict(rows, pictures.features)
    with pytest.raises(ValueError, match="images of column image must be of one size"):
        read(data, ["image"], False)


def test_the_argument_is_checked() -> None:
    with pytest.raises(ValueError, match="in_memory must be auto, true or false, got 'disk'"):
        read(torch.zeros(4, 1), None, "disk")


LIMITED = """
import json, resource, sys
import torch
from datasets import Dataset
from tasks import ModuleTask
from learned_opt.core.rng import generator

def mebibytes(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) // 1024

torch.zeros(2).sum().item()
data = Dataset.load_from_disk(sys.argv[1])
before = mebibytes("RssAnon")
limit = (mebibytes("VmData") + 200) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

module = torch.nn.Linear(1024, 1)
task = ModuleTask(
    module, torch.nn.MSELoss(), data, inputs="x", targets="y", test_fraction=0.01,
    in_memory=json.loads(sys.argv[2]),
)
for step in range(200):
    task.batch(generator("x", step), {})
task.evaluate(task.init(generator("x"), {}), {})
print(mebibytes("VmHWM"), mebibytes("RssAnon") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_stays_bounded(tmp_path) -> None:
    """390 MiB of numbers under a limit that lets about half of them in."""
    x = np.random.default_rng(0).normal(size=(100_000, 1024)).astype(np.float32)
    Dataset.from_dict({"x": x, "y": x[:, :1]}).save_to_disk(str(tmp_path / "data"))

    outcomes = {}
    for in_memory in (False, True):
        words = [sys.executable, "-c", LIMITED, str(tmp_path / "data"), json.dumps(in_memory)]
        environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
        outcomes[in_memory] = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False
        )
    assert outcomes[False].returncode == 0, outcomes[False].stderr
    assert int(outcomes[False].stdout.split()[1]) < 100  # MiB
    assert outcomes[True].returncode != 0
    assert re.search("alloc|MemoryError|out of memory", outcomes[True].stderr)

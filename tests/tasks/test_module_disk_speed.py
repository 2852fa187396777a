"""What batches from the disk cost: inner steps on pictures of 32x32, from files and from memory.

Run with ``-m slow -s`` to see the figures; processor time, so that a busy machine matters little.
"""

import time
from statistics import median

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch import nn

from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.controller import AdamController
from tasks import ModuleTask

NUM_PICTURES = 4000
NUM_CHAINS = 4
NUM_STEPS = 20
REPEATS = 5
NETWORKS = {
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 10)),
    ),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 10)),
}


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (NUM_PICTURES, 32, 32, 3), dtype=np.uint8)
    features = Features({"image": Image(), "label": Value("int64")})
    columns = {"image": [Pillow.fromarray(picture) for picture in pixels]}
    columns["label"] = random.integers(0, 10, NUM_PICTURES).tolist()
    return Dataset.from_dict(columns, features)


def unroll_of(pictures: Dataset, network: str, in_memory: bool, compiled: bool) -> Unroll:
    task = ModuleTask(
        NETWORKS[network],
        nn.CrossEntropyLoss(),
        pictures,
        inputs="image",
        targets="label",
        in_memory=in_memory,
    )
    return Unroll(task, AdamController(symmetry_of(task)[1]), compile=compiled)


def seconds_of(unroll: Unroll, repeat: int) -> float:
    """Processor time of drawing the batches of an unroll and of its inner steps."""
    keys = [(repeat, chain) for chain in range(NUM_CHAINS)]
    chains = unroll.start(keys)
    theta = {}
    for name, value in unroll.optimizer.named_parameters():
        theta[name] = value.detach().expand(NUM_CHAINS, *value.shape)

    start = time.process_time()
    with torch.no_grad():
        unroll.run(theta, chains, unroll.batches(keys, chains, NUM_STEPS))
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("network", NETWORKS)
def test_batches_from_the_disk_are_nearly_as_fast(
    network, compiled, pictures, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    unrolls = {
        kind: unroll_of(pictures, network, kind == "memory", compiled)
        for kind in ("memory", "disk")
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in unrolls}
    for repeat in range(REPEATS + 1):
        for kind, unroll in unrolls.items():  # interleaved
            seconds[kind].append(seconds_of(unroll, repeat))

    pairs = zip(seconds["disk"][1:], seconds["memory"][1:], strict=True)  # the first warms up
    ratios = sorted(disk / memory for disk, memory in pairs)
    print(f"{network}: {median(seconds['memory']):.3f} s in memory, disk/memory {ratios}")
    assert median(ratios) < 1.2

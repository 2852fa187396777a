"""Guards that keep a comparison fair.

Held-out data and seeds must be new to the optimizer, and all optimizers must start alike.

Legend: n rows of data, d columns.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import generator
from tasks.base import TaskFamily

CHUNK = 1 << 16  # rows hashed at once

# how an evaluated task can relate to those of a meta-training, the closest first
SAME_TASK = "in-distribution"
SAME_DATA = "seen data"
SAME_NAME = "data of the same name"
UNSEEN = "unseen"
UNKNOWN = "unknown"

Metadata = Mapping[str, Any]  # of a theta, as in ``theta.json``
Facts = Mapping[str, Any]  # the description of a task, the fingerprint of its data included


class Origin(NamedTuple):
    """How an evaluated task relates to those of a meta-training.

    Args:
        kind: one of the five words above.
        sentence: the same for a reader.
    """

    kind: str
    sentence: str


class _TrainedTask(NamedTuple):
    """A task of a meta-training; ``config`` is None where the metadata do not tell it."""

    name: str
    facts: Facts
    config: Any


def origin(name: str, metadata: Metadata, task: str, facts: Facts, config: Any) -> Origin:
    """Compare a task with those that an optimizer was meta-trained on.

    Args:
        name: the optimizer.
        metadata: its ``theta.json``.
        task: the evaluated task.
        facts: its description, fingerprint of the data included.
        config: what it was made of, as in ``theta.json``; None where that is not known.

    Returns:
        Origin: the closest relation to any of the tasks of the meta-training.
    """
    if "tasks" not in metadata:
        return Origin(UNKNOWN, f"{name} does not say which tasks it was meta-trained on.")
    trained_tasks = list(_trained_tasks(metadata))
    fingerprint = facts.get("fingerprint")
    data = facts.get("data")

    # one loop for each relation: the closest one counts, to whichever task it is
    for trained in trained_tasks:
        if _is_same_task(trained, facts, config):
            is_whole = trained.config is not None and config is not None
            basis = "" if is_whole else " as far as its description tells"
            sentence = f"{name} was meta-trained on {task} itself{basis}: in-distribution."
            return Origin(SAME_TASK, sentence)

    for trained in trained_tasks:
        if fingerprint is not None and trained.facts.get("fingerprint") == fingerprint:
            sentence = (
                f"{name} was meta-trained on the data of {task} ({data}) in another task, "
                f"{trained.name}."
            )
            return Origin(SAME_DATA, sentence)

    for trained in trained_tasks:
        if data is not None and _stem(trained.facts.get("data")) == _stem(data):
            before = f"{trained.facts['data']} {trained.facts.get('fingerprint')}"
            sentence = (
                f"{name} was meta-trained on data of the same name as {task}'s in another form "
                f"({before}, in {trained.name}; here {data} {fingerprint}): "
                "held-out rows may have been trained on."
            )
            return Origin(SAME_NAME, sentence)

    return Origin(UNSEEN, f"{name} saw neither {task} nor its data in meta-training.")


def _trained_tasks(metadata: Metadata) -> Iterator[_TrainedTask]:
    """Every task of a meta-training, and of those that it started from."""
    for prefix, record in _lineage(metadata):
        configs = record.get("task_configs") or {}
        for name, facts in record["tasks"].items():
            yield _TrainedTask(prefix + name, facts, configs.get(name))


def _lineage(metadata: Metadata) -> Iterator[tuple[str, Metadata]]:
    """A meta-training and those that it started from.

    Each comes with a prefix that tells its tasks from the others'.
    """
    yield "", metadata
    before = metadata.get("started_from")
    if before:
        for prefix, record in _lineage(before):
            yield f"{before['name']}/{prefix}", record


def _is_same_task(trained: _TrainedTask, facts: Facts, config: Any) -> bool:
    if _apart_from_name(trained.facts) != _apart_from_name(facts):
        return False
    return trained.config is None or config is None or trained.config == config


def _apart_from_name(facts: Facts) -> dict[str, Any]:
    """A description without the name, and as JSON gives it back."""
    comparable: dict[str, Any] = {}
    for key, value in facts.items():
        if key != "task":
            comparable[key] = list(value) if isinstance(value, tuple) else value
    return comparable


def _stem(data: str | None) -> str | None:
    """Data without their form: ``fashion_mnist`` of ``fashion_mnist 8x8``."""
    return data.split()[0] if data else None


def seeds_sentence(name: str, metadata: Metadata, purpose: str) -> str:
    """A warning where the meta-training may have used the draws of the evaluation, else empty.

    Args:
        name: the optimizer.
        metadata: its ``theta.json``.
        purpose: the key of the evaluation's draws.
    """
    for _, record in _lineage(metadata):
        draws = record.get("draws")
        if draws is None:
            return (
                f"{name} does not say which random draws its meta-training used; it may have seen "
                "the held-out seeds."
            )

        uses = [use for use, key in draws.items() if key == purpose]
        if uses:
            return (
                f"{name} used the held-out seeds (draws keyed {purpose!r}) for {', '.join(uses)}: "
                "its figures are not held out."
            )

    return ""


def start_fingerprints(family: TaskFamily, purpose: str, seeds: Sequence[int]) -> list[str]:
    """Digest of task, initial parameters and first batch of every seed; equal for paired runs."""
    digests = []
    for seed in seeds:
        task = family.sample(generator(purpose, seed, "task"))
        params = family.init(generator(purpose, seed, "init"), task)
        batch = family.batch(generator(purpose, seed, 0, "batch"), task)

        digest = hashlib.sha256()
        for leaf in tree.leaves({"task": task, "params": params, "batch": batch}):
            digest.update(leaf.cpu().contiguous().numpy().tobytes())
        digests.append(digest.hexdigest()[:12])

    return digests


def check_paired(starts: Mapping[str, Sequence[str]]) -> None:
    """Every optimizer started from the same tasks, weights and batches.

    Args:
        starts: optimizer -> start fingerprints of its seeds.

    Raises:
        ValueError: two differ; names them.
    """
    first = next(iter(starts))
    for name, fingerprints in starts.items():
        if list(fingerprints) != list(starts[first]):
            raise ValueError(
                f"{name} and {first} did not start from the same held-out seeds; "
                "their runs are not paired."
            )


def shared_rows(family: TaskFamily) -> tuple[int, int] | None:
    """How many held-out rows also occur among the training rows.

    Rows are compared by a 64-bit hash of their bits.

    Returns:
        tuple[int, int] | None: that number and the number of held-out rows; None for a family
        without rows.
    """
    train = family.rows("train")
    test = family.rows("test")
    if train is None or test is None:
        return None
    shared = np.isin(_hashes(test), _hashes(train)).sum()
    return int(shared), len(test)


def _hashes(rows: Tensor) -> np.ndarray:
    """A number for each row, ``(n, d) -> (n,)``."""
    return np.concatenate([_chunk_hashes(chunk) for chunk in rows.split(CHUNK)])


def _chunk_hashes(rows: Tensor) -> np.ndarray:
    """A sum of the columns with random odd factors, modulo 2^64."""
    columns = rows.double().contiguous().view(torch.int64)
    source = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=source) * 2 + 1

    # floats that are whole numbers differ in their highest bits alone, so these are brought down
    mixed = (columns ^ (columns >> 29)) * factors
    return (mixed ^ (mixed >> 32)).sum(1).cpu().numpy()

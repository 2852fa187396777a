"""What keeps a comparison fair: held-out data and seeds are new to the optimizer, and all optimizers start alike.

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
SAME_TASK, SAME_DATA, SAME_NAME, UNSEEN = (
    "in-distribution",
    "seen data",
    "data of the same name",
    "unseen",
)


class Origin(NamedTuple):
    """How an evaluated task relates to those of a meta-training.

    Args:
        kind: one of the four words above.
        sentence: says it plainly.
    """

    kind: str
    sentence: str


def origin(
    name: str, metadata: Mapping[str, Any], task: str, facts: Mapping[str, Any], config: Any
) -> Origin:
    """Compare a task with those that an optimizer was meta-trained on.

    Args:
        name: the optimizer.
        metadata: its ``theta.json``.
        task: the evaluated task.
        facts: its description, fingerprint of the data included.
        config: what it was made of, as in ``theta.json``.

    Returns:
        Origin: the closest relation to any of the tasks of the meta-training.
    """
    seen = list(_trained_on(metadata))
    print_of, data = facts.get("fingerprint"), facts.get("data")
    for _, own, made_of in seen:
        if _apart_from_name(own) == _apart_from_name(facts) and (
            made_of is None or made_of == config
        ):
            basis = "" if made_of is not None else " as far as its description tells"
            return Origin(
                SAME_TASK, f"{name} was meta-trained on {task} itself{basis}: in-distribution."
            )
    for trained, own, _ in seen:
        if print_of is not None and own.get("fingerprint") == print_of:
            return Origin(
                SAME_DATA,
                f"{name} was meta-trained on the data of {task} ({data}) in another task, {trained}.",
            )
    for trained, own, _ in seen:
        if data is not None and _stem(own.get("data")) == _stem(data):
            what = f"{own['data']} {own.get('fingerprint')}, in {trained}; here {data} {print_of}"
            sentence = f"{name} was meta-trained on data of the same name as {task}'s in another form ({what}): "
            return Origin(SAME_NAME, sentence + "held-out rows may have been trained on.")
    return Origin(UNSEEN, f"{name} saw neither {task} nor its data in meta-training.")


def _trained_on(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Name, description and config of every task of a meta-training, and of those that it started from."""
    for prefix, record in _lineage(metadata):
        configs = record.get("task_configs") or {}
        yield from (
            (prefix + name, facts, configs.get(name)) for name, facts in record["tasks"].items()
        )


def _lineage(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A meta-training and those that it started from, each with what tells its tasks from the others'."""
    yield "", metadata
    if before := metadata.get("started_from"):
        yield from ((f"{before['name']}/{prefix}", record) for prefix, record in _lineage(before))


def _apart_from_name(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A description without the name, and as JSON gives it back."""
    return {
        key: list(v) if isinstance(v, tuple) else v for key, v in facts.items() if key != "task"
    }


def _stem(data: str | None) -> str | None:
    """``fashion_mnist`` of ``fashion_mnist 8x8``."""
    return data.split()[0] if data else None


def seeds_sentence(name: str, metadata: Mapping[str, Any], purpose: str) -> str:
    """Empty where the meta-training is known not to have used the draws of the evaluation, else a warning."""
    for _, record in _lineage(metadata):
        recorded = record.get("draws")
        if recorded is None:
            return f"{name} does not say which random draws its meta-training used; it may have seen the held-out seeds."
        if purpose in recorded.values():
            used = ", ".join(use for use, word in recorded.items() if word == purpose)
            return f"{name} used the held-out seeds (draws keyed {purpose!r}) for {used}: its figures are not held out."
    return ""


def start_fingerprints(family: TaskFamily, purpose: str, seeds: Sequence[int]) -> list[str]:
    """Digest of the task, the initial parameters and the first batch of every seed; equal for paired runs."""
    digests = []
    for seed in seeds:
        task = family.sample(generator(purpose, seed, "task"))
        start = {"task": task, "params": family.init(generator(purpose, seed, "init"), task)}
        start["batch"] = family.batch(generator(purpose, seed, 0, "batch"), task)
        digest = hashlib.sha256()
        for leaf in tree.leaves(start):
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
    for name, own in starts.items():
        if list(own) != list(starts[first]):
            raise ValueError(
                f"{name} and {first} did not start from the same held-out seeds; their runs are not paired."
            )


def shared_rows(family: TaskFamily) -> tuple[int, int] | None:
    """How many held-out rows also occur among the training rows, and how many there are; None without rows.

    Rows are compared by a 64-bit hash of their bits.
    """
    train, test = family.rows("train"), family.rows("test")
    if train is None or test is None:
        return None
    hashes = [
        np.concatenate([_hashes(part) for part in rows.split(CHUNK)]) for rows in (train, test)
    ]
    return int(np.isin(hashes[1], hashes[0]).sum()), len(test)


def _hashes(rows: Tensor) -> np.ndarray:
    """A number for each row: a sum of its columns with random odd factors, modulo 2^64."""
    columns = rows.double().contiguous().view(torch.int64)
    factors = (
        torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=torch.Generator().manual_seed(0))
        * 2
        + 1
    )
    mixed = (
        columns ^ (columns >> 29)
    ) * factors  # floats that are whole numbers differ in their highest bits alone
    return (mixed ^ (mixed >> 32)).sum(1).cpu().numpy()

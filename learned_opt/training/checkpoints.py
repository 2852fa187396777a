"""Checkpoint files: written whole or not at all, checked before they are used, the last few kept.

``step_100.ckpt`` is what Lightning saves after outer step 100; ``step_100.ckpt.sha256`` beside it holds its checksum in
the format of ``sha256sum -c``.
"""

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.deploy.weights import check_theta
from learned_opt.estimators.base import GradientEstimator
from learned_opt.optimizers.base import MetaOptimizer

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """No checkpoint can be written, or of those that there are none can be used."""


def by_step(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder, the newest first."""
    found = {int(path.stem.removeprefix("step_")): path for path in folder.glob("step_*.ckpt")}
    return dict(sorted(found.items(), reverse=True))


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is what was written."""
    if not beside(path).is_file():
        return False
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            == beside(path).read_text().split(" ")[0]
        )


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder; None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged.
    """
    found = list(by_step(folder).values())
    for path in found:
        if is_whole(path):
            return path
        log.warning("checkpoint %s is damaged; looking for the one before it", path)
    if found:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged; move the folder away to start anew."
        )
    return None


def prune(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the last few up to ``step``, and what kills have left.

    Those after ``step`` are damaged, for else the run had gone on from there.
    """
    kept = [own for own in by_step(folder) if own <= step][:keep]
    for own, path in by_step(folder).items():
        if own not in kept:
            path.unlink()
    for path in folder.glob("*.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()
    for path in folder.glob("*.partial"):
        path.unlink()


def find_checkpoint(path: Path) -> Path:
    """A checkpoint, or the newest whole one of a run folder.

    Raises:
        ValueError: there is none.
    """
    file = newest(path / "checkpoints") if path.is_dir() else path
    if file is None or not file.is_file():
        raise ValueError(
            f"ckpt must be a checkpoint file or a run folder that holds one, but there is none at {path}."
        )
    return file


def check_fits(file: Path, optimizer: MetaOptimizer, estimator: GradientEstimator) -> None:
    """Check that a checkpoint can be resumed with this meta-optimizer and this estimator.

    Args:
        file: the checkpoint.
        optimizer: holds theta.
        estimator: of all tasks.

    Raises:
        ValueError: it is damaged, not ours, of another architecture or of other chains; names what differs.
    """
    checkpoint = read(file)
    prefix = "meta_optimizer."
    theta = {name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()}
    check_theta(optimizer, theta, str(file))
    fresh = estimator.init_state(dict(optimizer.named_parameters()), generator("fresh"))
    saved, needed = (
        {name: tuple(leaf.shape) for name, leaf in tree.flatten(state).items()}
        for state in (checkpoint["estimator_state"], fresh)
    )
    for name in {**needed, **saved}:
        there, here = (shapes.get(name, "missing") for shapes in (saved, needed))
        if there != here:
            raise ValueError(
                f"ckpt {file} is of another run: {name} is {there} there and {here} here."
            )


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        ValueError: it is damaged or not ours.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"ckpt {file} cannot be read, it is damaged or not a checkpoint."
        ) from error
    if not isinstance(checkpoint, dict) or "estimator_state" not in checkpoint:
        raise ValueError(f"ckpt {file} is no checkpoint of meta-training.")
    return checkpoint


def num_tasks(file: Path) -> dict[str, int]:
    """How many tasks the chains of a checkpoint have, by task of the mix; a single task has no name."""
    state = read(file)["estimator_state"]
    tasks = {"": state} if isinstance(state.get("step"), torch.Tensor) else state
    return {task: len(own["step"]) for task, own in tasks.items()}


def beside(path: Path) -> Path:
    """Where the checksum of a checkpoint is."""
    return path.with_name(path.name + ".sha256")

"""Checkpoint files: checked before they are used, the last few kept.

``step_100.ckpt`` is what Lightning saves after outer step 100; ``step_100.ckpt.sha256`` beside it
holds its checksum in the format of ``sha256sum -c``.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.deploy.weights import check_theta
from learned_opt.estimators.base import GradientEstimator, State
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.parameter_groups import NAME

PREFIX = "meta_optimizer."  # of theta's names in a checkpoint: MetaTrainer's attribute

log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """No checkpoint can be written, or of those that there are none can be used."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of the checkpoint after an outer step."""
    return folder / f"step_{step}.ckpt"


def checksum_path(checkpoint: Path) -> Path:
    """Where the checksum of a checkpoint is."""
    return checkpoint.with_name(checkpoint.name + ".sha256")


def by_step(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by their outer steps, the newest first."""
    files: dict[int, Path] = {}
    for path in folder.glob("step_*.ckpt"):
        step = int(path.stem.removeprefix("step_"))
        files[step] = path
    return dict(sorted(files.items(), reverse=True))


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is what was written."""
    expected = _expected_digest(checkpoint)
    return expected is not None and _digest(checkpoint) == expected


def _digest(checkpoint: Path) -> str:
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected_digest(checkpoint: Path) -> str | None:
    """The digest in the checksum beside a checkpoint; None where there is no checksum."""
    checksum = checksum_path(checkpoint)
    if not checksum.is_file():
        return None
    return checksum.read_text(errors="replace").partition(" ")[0].strip()


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder; None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints, but every one is damaged.
    """
    files = list(by_step(folder).values())
    for path in files:
        if is_whole(path):
            return path
        log.warning("checkpoint %s is damaged; looking for the one before it", path)

    if files:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged; move the folder away to start anew."
        )
    return None


def prune(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the last few up to ``step``, and what kills have left.

    Those after ``step`` are damaged, for else the run had gone on from there.
    """
    files = by_step(folder)
    kept = [other for other in files if other <= step][:keep]
    for other, path in files.items():
        if other not in kept:
            path.unlink()

    for path in folder.glob("*.sha256"):
        if not path.with_suffix("").exists():
            path.unlink()
    remove_partial_files(folder)


def remove_partial_files(folder: Path) -> None:
    """Remove what a kill has left of files that were being written in a folder."""
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)


def find_checkpoint(path: Path) -> Path:
    """A checkpoint, or the newest whole one of a run folder.

    Raises:
        ValueError: there is none, or it is not what its checksum says.
        CheckpointError: it is a run folder in which every checkpoint is damaged.
    """
    file = newest(RunFolder(path).checkpoints) if path.is_dir() else path
    if file is None or not file.is_file():
        raise ValueError(
            "checkpoint must be the file of one or a run folder that holds one, "
            f"but there is none at {path}."
        )
    if not path.is_dir():
        _verify(file)
    return file


def _verify(file: Path) -> None:
    """Check a file that a person names against the checksum beside it."""
    checksum = checksum_path(file)
    expected = _expected_digest(file)
    if expected is None:
        log.warning(
            "checkpoint %s cannot be verified: there is no %s beside it", file, checksum.name
        )
        return

    digest = _digest(file)
    if digest != expected:
        raise ValueError(
            f"checkpoint {file} is damaged, or another file than was written: its SHA-256 is "
            f"{digest[:12]}..., but {checksum.name} says {expected[:12]}...; "
            "choose another checkpoint of the run."
        )


def check_fits(file: Path, optimizer: MetaOptimizer, estimator: GradientEstimator) -> None:
    """Check that a checkpoint can be resumed with this meta-optimizer and this estimator.

    Args:
        file: the checkpoint.
        optimizer: holds theta.
        estimator: of all tasks.

    Raises:
        ValueError: it is damaged, not ours, of another architecture or of other chains; names
            what differs.
    """
    checkpoint = read(file)
    theta: dict[str, torch.Tensor] = {}
    for name, value in checkpoint["state_dict"].items():
        theta[name.removeprefix(PREFIX)] = value
    check_theta(optimizer, theta, f"of checkpoint {file}")

    fresh = estimator.init_state(dict(optimizer.named_parameters()), generator("fresh"))
    needed = _shapes(fresh)
    saved = _shapes(checkpoint["estimator_state"])
    for name in {**needed, **saved}:
        there = saved.get(name, "missing")
        here = needed.get(name, "missing")
        if there != here:
            raise ValueError(
                f"checkpoint {file} is of another run: {name} is {there} there and {here} here."
            )


def check_groups(file: Path, blocks: Sequence[str]) -> None:
    """Check that the outer optimizer of a checkpoint has the blocks of this one.

    Args:
        file: the checkpoint.
        blocks: names of the blocks; empty where the outer optimizer has none.

    Raises:
        ValueError: it has others.
    """
    saved: list[str] = []
    for state in read(file).get("optimizer_states", []):
        saved += [group[NAME] for group in state["param_groups"] if NAME in group]

    if saved != list(blocks):
        there = ", ".join(saved) or "none"
        here = ", ".join(blocks) or "none"
        raise ValueError(
            f"checkpoint {file} is of another outer optimizer: its blocks are {there}, here they "
            f"are {here}."
        )


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in tree.flatten(state).items()}


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        ValueError: it is damaged or not ours.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes the parser raise whatever it likes
        raise ValueError(
            f"checkpoint {file} cannot be read, it is damaged or not a checkpoint."
        ) from error

    is_ours = isinstance(checkpoint, dict)
    for key in ("state_dict", "estimator_state"):
        is_ours = is_ours and isinstance(checkpoint.get(key), dict)
    if is_ours:
        leaves = tree.flatten(checkpoint["estimator_state"]).values()
        is_ours = all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    if not is_ours:
        raise ValueError(f"checkpoint {file} is no checkpoint of meta-training.")
    return checkpoint


def num_tasks(file: Path) -> dict[str, int]:
    """How many tasks the chains of a checkpoint have, by task of the mix.

    A single task has no name: its key is the empty string.
    """
    state = read(file)["estimator_state"]
    is_single = isinstance(state.get("step"), torch.Tensor)
    states = {"": state} if is_single else state
    return {task: len(chains["step"]) for task, chains in states.items()}

"""Theta from the middle of a training."""

from pathlib import Path

import torch

from learned_opt.deploy import hub
from learned_opt.deploy.weights import check_theta, load_theta
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.checkpoint_files import PREFIX, find_checkpoint, read

SUFFIX = ".ckpt"


def load_theta_or_checkpoint(name: str, optimizer: MetaOptimizer) -> None:
    """Load a trained theta, or that of a checkpoint, into an optimizer.

    Args:
        name: a packaged name, run folder, file or hub id; a checkpoint file; or the folder of a
            run that has no trained theta yet, whose newest checkpoint is taken.
        optimizer: gets theta.

    Raises:
        ValueError: there is nothing of that name, it is damaged, or it is of another architecture.
        CheckpointError: it is a run folder in which every checkpoint is damaged.
    """
    path = Path(name).expanduser()
    is_unfinished = not RunFolder(path).theta.is_file() and RunFolder(path).checkpoints.is_dir()
    if path.suffix != SUFFIX and not is_unfinished:
        load_theta(hub.find(name), optimizer)
        return

    file = find_checkpoint(path)
    theta: dict[str, torch.Tensor] = {}
    for key, value in read(file)["state_dict"].items():
        theta[key.removeprefix(PREFIX)] = value
    check_theta(optimizer, theta, f"of checkpoint {file}")

    with torch.no_grad():
        for key, parameter in optimizer.named_parameters():
            parameter.copy_(theta[key])

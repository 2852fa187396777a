"""What a meta-training from Python comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from learned_opt.core import tree
from learned_opt.deploy.weights import save_theta
from learned_opt.inner.bound_task import BoundTask
from learned_opt.optimizers.base import MetaOptimizer


@dataclass(frozen=True)
class MetaTrained:
    """A meta-trained optimizer and how it came about.

    Args:
        optimizer: with the trained theta, on the weights of the first task.
        history: the metrics, a row for each outer step; ``step`` counts from 0.
        interrupted: whether Ctrl-C ended the training before its last outer step.
        tasks: with their inner loops, by name.
        metadata: what ``theta.json`` says of theta.
        obstacle: why theta cannot be saved; empty where it can be.
    """

    optimizer: MetaOptimizer
    history: pd.DataFrame
    interrupted: bool
    tasks: Mapping[str, BoundTask]
    metadata: Mapping[str, Any]
    obstacle: str = ""

    @property
    def theta(self) -> dict[str, Tensor]:
        """The trained meta-parameters by name, copies on the CPU."""
        copies = {}
        for name, parameter in self.optimizer.named_parameters():
            copies[name] = parameter.detach().cpu().clone()
        return copies

    def save(self, folder: str | Path) -> Path:
        """Write ``theta.safetensors`` and ``theta.json``.

        The folder is what ``LearnedOptimizer.from_pretrained``, ``evaluate`` and ``compare`` take,
        and ``theta=FOLDER`` on the command line.

        Args:
            folder: made where it is missing.

        Returns:
            Path: the folder.

        Raises:
            ValueError: ``theta.json`` has no words for the constructor of the optimizer.
            OSError: the folder cannot be written to.
        """
        if self.obstacle:
            raise ValueError(self.obstacle)
        save_theta(Path(folder), self.theta, self.metadata)
        return Path(folder)

    def __repr__(self) -> str:
        name = self.metadata["optimizer_name"]
        size = tree.num_elements(dict(self.optimizer.named_parameters()))
        steps = self.metadata["provenance"]["outer_steps"]
        words = [f"{name} on {', '.join(self.tasks)}", f"{size:,} parameters"]
        words.append(f"{steps} outer steps")
        if "meta_loss/train" in self.history:
            losses = self.history["meta_loss/train"].tolist()
            words.append(f"meta-loss {losses[0]:.4g} -> {losses[-1]:.4g}")
        if self.interrupted:
            words.append("interrupted")
        return f"MetaTrained({', '.join(words)})"

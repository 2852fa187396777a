"""The node ``outer_optimizer`` of a config: what updates theta, and what is kept beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from learned_opt.training.parameter_groups import Settings, parameter_groups

BESIDE = ("average", "signal_rates")  # keys of callbacks


@dataclass(frozen=True)
class Outer:
    """What a config says of the outer optimizer.

    Args:
        optimizer: constructor ``(parameters) -> torch.optim.Optimizer``.
        schedule: constructor ``(outer optimizer) -> schedule``.
        blocks: pattern -> settings, see ``parameter_groups``.
        beside: callbacks that average theta or scale the rates.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[..., Any]
    blocks: Mapping[str, Settings]
    beside: list[lightning.Callback]

    def check(self, theta: Mapping[str, Tensor]) -> None:
        """Build it once, on a theta that it will train.

        Raises:
            ValueError: a value is out of its range, or the blocks do not fit theta.
            TypeError: a key is unknown.
        """
        parameters: Any = list(theta.values())
        if self.blocks:
            parameters = parameter_groups(theta, self.blocks, self.optimizer)
        self.schedule(self.optimizer(parameters))


def build_outer(node: DictConfig) -> Outer:
    """The outer optimizer of a config.

    Args:
        node: ``optimizer`` and ``schedule``; perhaps ``blocks``, ``average`` and ``signal_rates``.

    Raises:
        ValueError: a value is out of its range; ``blocks`` is no mapping of mappings, or what is
            kept beside theta is no callback.
    """
    blocks = _blocks(node)
    made = instantiate(node)

    beside = []
    for key in BESIDE:
        callback = made.get(key)
        if callback is None:
            continue
        if not isinstance(callback, lightning.Callback):
            raise ValueError(
                f"outer_optimizer.{key} must be a node of a Lightning callback, as in "
                f"outer_optimizer/blocks.yaml, got {callback!r}."
            )
        beside.append(callback)
    return Outer(made["optimizer"], made["schedule"], blocks, beside)


def _blocks(node: DictConfig) -> dict[str, Settings]:
    """The settings of each block as plain values; a block that is null is left out."""
    blocks = node.get("blocks")
    if blocks is None:
        return {}

    values = OmegaConf.to_container(blocks, resolve=True)
    rule = "outer_optimizer.blocks must map each block to its settings, such as {lr: 1e-3}"
    if not isinstance(values, dict):
        raise ValueError(f"{rule}, got {values!r}.")
    kept: dict[str, Settings] = {}
    for name, settings in values.items():
        if settings is None:
            continue
        if not isinstance(settings, dict):
            raise ValueError(f"{rule}, got {settings!r} for {name}.")
        kept[str(name)] = {str(key): value for key, value in settings.items()}
    return kept

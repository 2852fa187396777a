"""Inner loops of one task and one optimizer at several widths of the network."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose import trained_theta
from learned_opt.compose.inner_problems import parametrised
from learned_opt.compose.resolve import task_values
from learned_opt.compose.width_configs import at_widths
from learned_opt.core.device import resolve_device
from learned_opt.core.errors import UsageError, usage_errors
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.evaluation.theta_contender import find_theta, theta_contender
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

Constructor = Callable[[PermutationSpec], MetaOptimizer]


def build_unrolls(cfg: DictConfig) -> tuple[str, Iterator[tuple[int, Unroll]]]:
    """The optimizer's name, and the inner loop at each width, built when its turn comes.

    Args:
        cfg: the composed config of ``coordinate-check``.

    Raises:
        UsageError: a value is out of its range, there is a mix of tasks, or the theta is missing
            or damaged; and, when a width is built, what its network and the optimizer refuse.
    """
    if "mix" in cfg:
        raise UsageError(f"this command takes one task, got a mix of {', '.join(cfg.mix)}.")
    for key, lowest in (("steps", 1), ("seeds", 1)):
        if not isinstance(cfg[key], int) or cfg[key] < lowest:
            raise UsageError(f"{key} must be a whole number from {lowest} on, got {cfg[key]!r}.")
    if not isinstance(cfg.limit, int | float) or cfg.limit <= 0:
        raise UsageError(f"limit must be a positive number, got {cfg.limit!r}.")

    configs = at_widths(cfg)
    with usage_errors():
        name, constructor = _optimizer(cfg)
    return name, _unrolls(configs, constructor)


def _unrolls(
    configs: dict[int, DictConfig], constructor: Constructor
) -> Iterator[tuple[int, Unroll]]:
    for width, cfg in configs.items():
        with usage_errors():
            family: Any = parametrised(cfg, instantiate(task_values(cfg)))
            device = resolve_device(cfg.device)
            _, spec = symmetry_of(family)
            torch.manual_seed(cfg.seed)  # one theta at all widths
            optimizer = constructor(spec).to(device).with_num_steps(cfg.horizon)
            unroll = Unroll(family, optimizer, cfg.compile, device, cfg.precision)
        yield width, unroll


def _optimizer(cfg: DictConfig) -> tuple[str, Constructor]:
    """Name and constructor of the trained optimizer, or of that of the config."""
    source = trained_theta.single(cfg)
    if source is None:
        return cfg.optimizer_name, instantiate(cfg.meta_optimizer)
    path, metadata = find_theta(source)
    trust = trusted_modules(cfg.trust)
    contender = theta_contender(metadata["optimizer_name"], Path(path), metadata, trust)
    return f"{contender.name} ({source})", contender.constructor

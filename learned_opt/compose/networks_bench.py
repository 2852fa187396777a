"""From a config to what the benches of layers and of deployed optimizers measure."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose.bench_steps import check_names
from learned_opt.compose.command_line import command
from learned_opt.core.device import resolve_device
from learned_opt.runtime.machine import describe_machine
from learned_opt.runtime.memory import keep_freed_memory
from learned_opt.runtime.provenance import git_revision


def build_layers(cfg: DictConfig) -> tuple[dict[str, Any], torch.device]:
    """The cases of ``bench networks`` by name, and the device that they are measured on.

    Raises:
        UsageError: ``only`` names an unknown case.
        ValueError: a value is out of its range.
    """
    check_names("only", cfg.only, cfg.cases)
    keep_freed_memory()
    device = torch.device(resolve_device(cfg.device))
    cases = {name: instantiate(cfg.cases[name]) for name in cfg.only or cfg.cases}
    # for the layers, which are made when their turn comes
    torch.manual_seed(0)
    return cases, device


def build_deployed(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``bench deploy`` measures.

    Returns:
        tuple: name -> (network, example of its input), and name -> constructor of an optimizer.

    Raises:
        UsageError: ``only`` names an unknown network.
        ValueError: a value is out of its range.
    """
    check_names("only", cfg.only, cfg.networks, kind="networks")
    keep_freed_memory()
    # processor time is measured, in which threads would add up
    torch.set_num_threads(1)

    networks = {}
    for name in cfg.only or cfg.networks:
        node = cfg.networks[name]
        networks[name] = (instantiate(node), _example(node.input_shape))

    learned = {name: instantiate(node) for name, node in cfg.learned.items()}
    return networks, learned


def facts(device: torch.device) -> dict[str, Any]:
    """What a reader of the numbers needs beside them."""
    return {"command": command(), "git": git_revision(), **describe_machine(device)}


def _example(shape: Sequence[int]) -> torch.Tensor:
    """One image, or one sequence of tokens."""
    is_text = len(shape) == 1
    return torch.zeros(1, *shape, dtype=torch.int64 if is_text else torch.float32)

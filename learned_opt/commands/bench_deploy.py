"""What a step of a deployed optimizer costs, against AdamW and a plain loop. ``python -m learned_opt bench deploy``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files

if TYPE_CHECKING:
    import torch


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench_deploy")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure, show and write."""
    import torch
    from rich.console import Console

    from learned_opt.compose import command_line
    from learned_opt.core import errors
    from learned_opt.evaluation.cost import deployed
    from learned_opt.reporting import tables
    from learned_opt.runtime import provenance
    from learned_opt.runtime.machine import describe_machine
    from learned_opt.runtime.memory import keep_freed_memory

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if unknown := sorted(set(cfg.only or ()) - set(cfg.networks)):
        errors.fail(
            f"only must hold names of networks ({', '.join(cfg.networks)}), got {', '.join(unknown)}."
        )
    keep_freed_memory()
    torch.set_num_threads(1)
    with errors.usage_errors():
        nodes = {name: cfg.networks[name] for name in cfg.only or cfg.networks}
        networks = {
            name: (instantiate(node), _example(node.input_shape)) for name, node in nodes.items()
        }
        learned = {name: instantiate(node) for name, node in cfg.learned.items()}
    facts = {
        "command": command_line.command(),
        "git": provenance.git_revision(),
        **describe_machine(torch.device("cpu")),
    }
    rows: list[dict[str, Any]] = []
    try:
        with errors.usage_errors(), console.status("first calls") as status:
            for row in deployed.measure(networks, learned, cfg.repeats, status.update):
                rows.append(row)
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            deployed.write(folder, rows, facts)
            for network in dict.fromkeys(row["network"] for row in rows):
                console.print(network, style="bold", highlight=False)
                own = [deployed.shown(row) for row in rows if row["network"] == network]
                console.print(tables.plain_table(deployed.HEADINGS[1:], own))
            console.print(deployed.NOTES.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: deployed.md, deployed.json", highlight=False)


def _example(shape: Sequence[int]) -> "torch.Tensor":
    """One image, or one sequence of tokens."""
    import torch

    return torch.zeros(1, *shape, dtype=torch.int64 if len(shape) == 1 else torch.float32)


def main() -> None:
    """Entry point of ``python -m learned_opt bench deploy``."""
    cli.entry_point(run, needs_task=False)


if __name__ == "__main__":
    main()

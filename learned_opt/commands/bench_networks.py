"""What the layers of inner networks cost. ``python -m learned_opt bench networks``."""

import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench_networks")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure, show and write."""
    import torch
    from rich.console import Console

    from learned_opt.compose import command_line
    from learned_opt.core import device, errors
    from learned_opt.evaluation.cost import layer_costs
    from learned_opt.reporting import tables
    from learned_opt.runtime import provenance
    from learned_opt.runtime.machine import describe_machine
    from learned_opt.runtime.memory import keep_freed_memory

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if unknown := sorted(set(cfg.only or ()) - set(cfg.cases)):
        errors.fail(
            f"only must hold names of cases ({', '.join(cfg.cases)}), got {', '.join(unknown)}."
        )
    keep_freed_memory()
    with errors.usage_errors():
        device = torch.device(device.resolve_device(cfg.device))
        cases = {name: instantiate(cfg.cases[name]) for name in cfg.only or cfg.cases}
    facts = {"command": command_line.command(), "git": provenance.git_revision()}
    facts |= describe_machine(device)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    try:
        with errors.usage_errors(), console.status("first calls") as status:
            for row in layer_costs.measure(
                cases, cfg.batch_size, cfg.repeats, device, status.update
            ):
                rows.append(row)
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            layer_costs.write(folder, rows, facts)
            console.print(tables.plain_table(layer_costs.SCREEN, map(layer_costs.ratios, rows)))
            console.print(
                tables.plain_table(
                    ("case", "grows", *layer_costs.FIGURES), layer_costs.growth(rows)
                )
            )
            console.print(layer_costs.NOTES.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: networks.md, networks.json", highlight=False)


def main() -> None:
    """Entry point of ``python -m learned_opt bench networks``."""
    cli.entry_point(run, needs_task=False)

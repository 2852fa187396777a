"""What the layers of inner networks cost. ``python -m learned_opt.bench networks``."""

import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt import cli


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="bench_networks")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure, show and write."""
    import torch
    from rich.console import Console

    from learned_opt import build, provenance
    from learned_opt.cost import layers
    from learned_opt.cost.machine import describe_machine
    from learned_opt.evaluation import tables

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if unknown := sorted(set(cfg.only or ()) - set(cfg.cases)):
        cli.fail(f"only must hold names of cases ({', '.join(cfg.cases)}), got {', '.join(unknown)}.")
    build.keep_freed_memory()
    with build.usage_errors():
        device = torch.device(build.resolve_device(cfg.device))
        cases = {name: instantiate(cfg.cases[name]) for name in cfg.only or cfg.cases}
    module, *words = provenance.command_words()
    facts = {"command": " ".join(["python -m", module, "networks", *words]), "git": provenance.git_revision()}
    facts |= describe_machine(device)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    try:
        with build.usage_errors(), console.status("first calls") as status:
            for row in layers.measure(cases, cfg.batch_size, cfg.repeats, device, status.update):
                rows.append(row)
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            layers.write(folder, rows, facts)
            console.print(tables.plain_table(layers.SCREEN, map(layers.ratios, rows)))
            console.print(tables.plain_table(("case", "grows", *layers.FIGURES), layers.growth(rows)))
            console.print(layers.NOTES.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: networks.md, networks.json", highlight=False)


def main() -> None:
    """Entry point of ``python -m learned_opt.bench networks``."""
    cli.entry_point(run, needs_task=False)

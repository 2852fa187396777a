"""Train several networks of one task alike. ``python -m learned_opt contest +experiment=quadratic_mlp_fashion``."""

import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="contest")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Train and compare the networks that the experiment lists."""
    import torch
    from rich.console import Console

    from learned_opt.compose import command_line
    from learned_opt.core import device, errors
    from learned_opt.evaluation import contest
    from learned_opt.inner import task_spec
    from learned_opt.reporting import contest_report, tables
    from learned_opt.runtime.memory import keep_freed_memory
    from learned_opt.runtime.provenance import provenance

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    keep_freed_memory()
    with errors.usage_errors():
        device, benchmark = device.resolve_device(cfg.device), instantiate(cfg.benchmark)
        if not cfg.networks:
            raise ValueError("networks is empty; choose an experiment that lists some.")
        make, families = instantiate(cfg.task, _partial_=True), {}  # the data are loaded once
        for name, network in cfg.networks.items():
            family = make(network=instantiate(network))
            families[str(name)] = (family, task_spec.symmetry_of(family)[1])
        rows = contest.contest(families, benchmark, cfg.compile, device, console.print)
    contest_report.write(
        folder, rows, provenance(cfg.seed, torch.device(device), command_line.command())
    )
    console.print(tables.plain_table(contest_report.HEADINGS, contest_report.summarise(rows)))
    console.print(contest_report.NOTES.replace("\n", " "), highlight=False)
    console.print(f"written to {folder}: contest.md, contest.json", highlight=False)


def main() -> None:
    """Entry point of ``python -m learned_opt contest``."""
    cli.entry_point(run)


if __name__ == "__main__":
    main()

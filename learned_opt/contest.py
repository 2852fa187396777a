"""Train several networks of one task alike. ``python -m learned_opt.contest +experiment=quadratic_mlp_fashion``."""

import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt import cli


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="contest")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Train and compare the networks that the experiment lists."""
    import torch
    from rich.console import Console

    from learned_opt import build
    from learned_opt.evaluation import contest, tables
    from learned_opt.provenance import provenance

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    build.keep_freed_memory()
    with build.usage_errors():
        device, benchmark = build.resolve_device(cfg.device), instantiate(cfg.benchmark)
        if not cfg.networks:
            raise ValueError("networks is empty; choose an experiment that lists some.")
        make, families = instantiate(cfg.task, _partial_=True), {}  # the data are loaded once
        for name, network in cfg.networks.items():
            family = make(network=instantiate(network))
            families[str(name)] = (family, build.symmetry_of(family)[1])
        rows = contest.contest(families, benchmark, cfg.compile, device, console.print)
    contest.write(folder, rows, provenance(cfg.seed, torch.device(device)))
    console.print(tables.plain_table(contest.HEADINGS, contest.summarise(rows)))
    console.print(contest.NOTES.replace("\n", " "), highlight=False)
    console.print(f"written to {folder}: contest.md, contest.json", highlight=False)


def main() -> None:
    """Entry point of ``python -m learned_opt.contest``."""
    cli.entry_point(run)


if __name__ == "__main__":
    main()

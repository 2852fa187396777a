"""What a step of a deployed optimizer costs, against AdamW and a plain loop over tensors."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench_deploy")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure steps of deployed optimizers, show the tables and write them."""
    import torch
    from rich.console import Console

    from learned_opt.compose import hydra_job, networks_bench, resolve
    from learned_opt.core.errors import usage_errors
    from learned_opt.evaluation.cost import deployed

    cfg = resolve.final(cfg)
    with usage_errors():
        networks, learned = networks_bench.build_deployed(cfg)

    facts = networks_bench.facts(torch.device("cpu"))
    console = Console()

    rows: list[dict[str, Any]] = []
    try:
        with usage_errors(), console.status("first calls", spinner="line") as status:
            for row in deployed.measure(networks, learned, cfg.repeats, status.update):
                rows.append(row)
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            _show(console, hydra_job.folder(), rows, facts)


def _show(console: Any, folder: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write the rows, and print a table for each network."""
    from learned_opt.reporting import deployed_report
    from learned_opt.reporting.tables import table_of

    deployed_report.write(folder, rows, facts)
    for network in dict.fromkeys(row["network"] for row in rows):
        cells = []
        for row in rows:
            if row["network"] == network:
                cells.append(deployed_report.cells(row))
        console.print(network, style="bold", highlight=False)
        console.print(table_of(deployed_report.HEADINGS[1:], cells))
    console.print(deployed_report.NOTES.replace("\n", " "), highlight=False)
    console.print(f"written to {folder}: deployed.md, deployed.json", highlight=False)


def main() -> None:
    """Entry point of ``bench deploy``."""
    cli.entry_point(run, needs_task=False)

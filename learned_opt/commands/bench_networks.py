"""What the layers of inner networks cost: time, parameters and memory, and how they grow."""

from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench_networks")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure what layers cost, show the tables and write them."""
    from rich.console import Console

    from learned_opt.compose import hydra_job, networks_bench, resolve
    from learned_opt.core.errors import usage_errors
    from learned_opt.evaluation.cost import layer_costs
    from learned_opt.reporting import layer_costs_report
    from learned_opt.reporting.tables import table_of

    cfg = resolve.final(cfg)
    with usage_errors():
        cases, device = networks_bench.build_layers(cfg)

    facts = networks_bench.facts(device)
    console = Console()

    rows: list[dict[str, Any]] = []
    try:
        with usage_errors(), console.status("first calls", spinner="line") as status:
            for row in layer_costs.measure(
                cases, cfg.batch_size, cfg.repeats, device, status.update
            ):
                rows.append(row)
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            folder = hydra_job.folder()
            layer_costs_report.write(folder, rows, facts)
            cells = [layer_costs_report.cells(row) for row in rows]
            growth = layer_costs.growth(rows)
            console.print(table_of(layer_costs_report.SCREEN, cells))
            console.print(table_of(layer_costs_report.GROWTH_HEADINGS, growth))
            console.print(layer_costs_report.NOTES.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: networks.md, networks.json", highlight=False)


def main() -> None:
    """Entry point of ``bench networks``."""
    cli.entry_point(run, needs_task=False)

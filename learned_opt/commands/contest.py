"""Train several networks of one task alike, ``contest +experiment=quadratic_mlp_fashion``."""

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="contest")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Train and compare the networks that the experiment lists."""
    from rich.console import Console

    from learned_opt.compose import command_line, config_tree, hydra_job, network_contest, resolve
    from learned_opt.core.device import resolve_device
    from learned_opt.core.errors import usage_errors
    from learned_opt.evaluation import contest
    from learned_opt.reporting import contest_report
    from learned_opt.reporting.run_progress import RunProgress
    from learned_opt.reporting.tables import table_of
    from learned_opt.runtime.provenance import provenance

    trained_theta.refuse(cfg, "theta", "checkpoint")
    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    console = Console()
    with usage_errors():
        device = resolve_device(cfg.device)
        benchmark = network_contest.build_benchmark(cfg)
        families = network_contest.build_families(cfg)
        with RunProgress() as progress:
            rows = contest.contest(families, benchmark, cfg.compile, device, progress)

    folder = hydra_job.folder()
    contest_report.write(folder, rows, provenance(cfg.seed, device, command_line.command()))
    console.print(table_of(contest_report.HEADINGS, contest_report.summarise(rows)))
    console.print(contest_report.NOTES.replace("\n", " "), highlight=False)
    console.print(f"written to {folder}: contest.md, contest.json", highlight=False)


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run)

"""Whether an optimizer carries over to wider networks, ``coordinate-check +task=mlp``."""

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta
from learned_opt.core.errors import RunError, usage_errors


@hydra.main(
    version_base="1.3", config_path=config_files.config_dir(), config_name="coordinate_check"
)
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Train a few steps at every width, and fit the slopes of the changes.

    Raises:
        RunError: a slope is beyond the limit.
    """
    from rich.console import Console

    from learned_opt.compose import command_line, config_tree, hydra_job, resolve, width_unrolls
    from learned_opt.evaluation import coordinate_check
    from learned_opt.reporting import coordinate_report
    from learned_opt.runtime.provenance import provenance

    trained_theta.refuse(cfg, "checkpoint")
    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    console = Console()

    name, unrolls = width_unrolls.build_unrolls(cfg)
    changes = {}
    facts = {}
    for width, unroll in unrolls:
        with usage_errors():
            changes[width] = coordinate_check.changes_of(unroll, cfg.steps, cfg.seeds)
        console.print(f"width {width}: {cfg.seeds} seeds, {cfg.steps} steps", highlight=False)
        facts = provenance(cfg.seed, unroll.device, command_line.command())

    slopes = coordinate_check.slopes_of(changes, cfg.limit)
    parametrisation = hydra_job.choice("parametrisation")
    question = f"{name} on {cfg.task.name}, parametrisation {parametrisation}"
    folder = hydra_job.folder()
    files = coordinate_report.write(folder, slopes, changes, question, facts)
    console.print(coordinate_report.slopes_table(slopes, changes)._replace(title=question))
    console.print(f"written to {folder}: {', '.join(files)}", highlight=False)

    failed = [slope.layer for slope in slopes if not slope.passed]
    if failed:
        raise RunError(
            f"{name} does not carry over: the slope of {', '.join(failed)} is beyond {cfg.limit:g}."
        )


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run)

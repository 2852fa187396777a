"""Evaluate trained thetas: optimizers x tasks x horizons x held-out seeds.

``evaluate +task=mlp theta=runs/.../theta.safetensors`` for one,
``theta={NAME: FILE, NAME: FILE}`` for several, with a generalisation card where one is asked
for. ``evaluate table FOLDER... [rows=NAME,NAME]`` prints the table of finished evaluations; where
rows are named, the best of all others is one more. Below it stand the time-to-target scores of all
optimizers of the folders, or of those that are named.
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta
from learned_opt.core.errors import UsageError, usage_errors


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="evaluate")
@cli.one_line_errors
def run(cfg: DictConfig) -> float:
    """One evaluation.

    Returns:
        float: mean held-out loss of the first theta, over all settings.
    """
    trained_theta.refuse(cfg, "checkpoint")
    trained_theta.named(cfg)

    # seconds of imports, only for words that make sense
    import torch
    from rich.console import Console

    from learned_opt.compose import config_tree, contenders, loggers, resolve
    from learned_opt.compose.command_line import command
    from learned_opt.core.device import resolve_device
    from learned_opt.evaluation.suite import run_suite
    from learned_opt.reporting import screens
    from learned_opt.reporting.run_progress import RunProgress
    from learned_opt.runtime.provenance import provenance
    from learned_opt.runtime.run_folder import RunFolder

    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    folder = RunFolder(Path(os.path.relpath(HydraConfig.get().runtime.output_dir)))
    console = Console()

    with usage_errors():
        facts = provenance(cfg.seed, torch.device(resolve_device(cfg.device)), command())
        learned = contenders.build_learned(cfg)
        named = loggers.named_after(cfg, learned)
        run_loggers = loggers.build_loggers(named, folder.path)
        loggers.log_evaluation_config(run_loggers, named, facts)

    cells = Path(cfg.cells)
    with loggers.completed(run_loggers, folder.path, screens.plain_line(console)):
        with usage_errors(), RunProgress() as progress:
            settings = contenders.build_settings(cfg)
            results = run_suite(settings, learned, cells, facts, progress)

        loss = screens.show_results(results, folder, console)
        console.print(
            f"{results.reused} of {results.num_cells} cells were there already, in {cells}",
            highlight=False,
        )

    return loss


def main() -> None:
    """Entry point of the verb; ``table`` as the first word needs no config."""
    if sys.argv[1:2] == ["table"]:
        cli.entry_point(_table, needs_task=False)
    else:
        cli.entry_point(run)


def _table() -> None:
    from learned_opt.reporting import pooled_scores, results_table

    rows: list[str] = []
    folders = []
    for word in sys.argv[2:]:
        if word.startswith("rows="):
            rows = word.removeprefix("rows=").split(",")
        else:
            folders.append(Path(word))
    try:
        print(results_table.table(folders, rows))
        print(f"\n{pooled_scores.text(folders, rows)}")
    except ValueError as error:
        raise UsageError(str(error)) from error

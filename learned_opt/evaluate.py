"""Evaluate trained thetas. ``python -m learned_opt.evaluate +task=mlp checkpoint=runs/.../theta.safetensors``.

With ``checkpoints={NAME: FILE}`` in place of ``checkpoint`` it is the suite: optimizers x tasks x horizons x seeds,
with a generalisation card where one is asked for. ``python -m learned_opt.evaluate table FOLDER...`` prints the table
of finished evaluations.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt import cli


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="evaluate")
@cli.one_line_errors
def run(cfg: DictConfig) -> float | None:
    """One evaluation; that of a single checkpoint returns the mean held-out loss."""
    from rich.console import Console

    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if (cfg.checkpoint is None) == (not cfg.checkpoints):
        raise cli.UsageError("give checkpoint=FILE, or checkpoints={NAME: FILE, NAME: FILE} for a suite.")
    return _suite(cfg, folder, Console()) if cfg.checkpoint is None else _page(cfg, folder, Console())


def _page(cfg: DictConfig, folder: Path, console: Any) -> float:
    from learned_opt import build, screens
    from learned_opt.deploy.weights import load_metadata, load_theta

    checkpoint = Path(cfg.checkpoint)
    with build.usage_errors():
        metadata = load_metadata(checkpoint)
    meta_optimizer: Any = OmegaConf.create(metadata["meta_optimizer"])
    problems = build.build_problems(cfg, meta_optimizer, metadata["optimizer_name"])
    with build.usage_errors():
        for problem in problems.values():
            load_theta(checkpoint, problem.optimizer)
    # nothing is trained here, so an augmentation is part of the question
    problems = {name: replace(problem, heldout=problem.unroll) for name, problem in problems.items()}
    cfg.meta_optimizer = meta_optimizer
    origin = {"trained_by": metadata["provenance"], "trained_on": metadata["tasks"]}
    return screens.evaluate_and_report(
        problems, cfg.compile, {**build.metadata(cfg, problems), **origin}, folder, console
    )


def _suite(cfg: DictConfig, folder: Path, console: Any) -> None:
    import torch

    from learned_opt import build, build_suite
    from learned_opt.evaluation import suite, suite_report, tables
    from learned_opt.provenance import provenance

    with build.usage_errors():
        device = torch.device(build.resolve_device(cfg.device))
        facts = provenance(cfg.seed, device)
        learned = build_suite.build_learned(cfg)
        results = suite.run_suite(
            build_suite.build_settings(cfg),
            learned,
            Path(cfg.cells),
            cfg.reference,
            cfg.tuned_for,
            facts,
            lambda line: console.print(line, highlight=False),
        )
    shown = suite_report.write(folder, results, cfg.reference, [contender.name for contender in learned], facts)
    for title, (headings, rows) in shown.items():
        console.print(title, style="bold")
        console.print(tables.plain_table(headings, rows))
    for sentence in results.warnings:
        console.print(f"note: {sentence}", highlight=False)
    console.print(
        f"{results.reused} of {len(results.budgets)} cells were there already, in {cfg.cells}", highlight=False
    )
    console.print(f"written to {folder}: report.md, summary.json, results.parquet, profiles.png, wins.png, curves.png")


def main() -> None:
    """Entry point of ``python -m learned_opt.evaluate``; ``table`` as the first word needs no config."""
    if sys.argv[1:2] == ["table"]:
        cli.entry_point(_table, needs_task=False)
    else:
        cli.entry_point(run)


def _table() -> None:
    from learned_opt.evaluation import results_table

    try:
        print(results_table.table([Path(word) for word in sys.argv[2:]]))
    except ValueError as error:
        raise cli.UsageError(str(error)) from error


if __name__ == "__main__":
    main()

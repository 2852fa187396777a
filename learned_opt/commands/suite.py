"""The evaluation suite as a command: run or read its cells, show and write what they come to."""

from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console

from learned_opt.compose import command_line, contenders
from learned_opt.core import device, errors
from learned_opt.evaluation.suite import run_suite
from learned_opt.reporting import suite_report, tables
from learned_opt.runtime.provenance import provenance


def evaluate_suite(cfg: DictConfig, folder: Path, console: Console) -> None:
    """Evaluate the checkpoints of a config on all its tasks, horizons and points of the card.

    Args:
        cfg: the composed config of ``evaluate``.
        folder: run folder.
        console: where to print.

    Raises:
        UsageError: a value is out of its range, or a checkpoint is missing, damaged or fits no task.
    """

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with errors.usage_errors():
        facts = provenance(
            cfg.seed, torch.device(device.resolve_device(cfg.device)), command_line.command()
        )
        learned, settings = contenders.build_learned(cfg), contenders.build_settings(cfg)
        results = run_suite(
            settings, learned, Path(cfg.cells), cfg.reference, cfg.tuned_for, facts, say
        )
    shown = suite_report.write(
        folder, results, cfg.reference, [contender.name for contender in learned], facts
    )
    for title, (headings, rows) in shown.items():
        console.print(title, style="bold")
        console.print(tables.plain_table(headings, rows))
    for sentence in results.warnings:
        say(f"note: {sentence}")
    say(f"{results.reused} of {len(results.budgets)} cells were there already, in {cfg.cells}")
    say(
        f"written to {folder}: report.html, report.md, summary.json, results.parquet, three pictures"
    )

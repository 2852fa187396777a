"""What a run shows on the terminal, and the comparison that ends it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from learned_opt.build import Problem
from learned_opt.deploy.weights import save_theta
from learned_opt.evaluation import tables
from learned_opt.evaluation.compare import compare
from learned_opt.evaluation.report import write_report
from learned_opt.meta.estimators.base import GradientEstimator


def first_screen(problem: Problem, estimator_name: str, estimator: GradientEstimator, folder: Path) -> Table:
    """What is about to run."""
    task, benchmark = problem.family.describe(), problem.benchmark
    shown = {k: v for k, v in task.items() if k not in ("task", "fingerprint", "num_train", "num_test")}
    sizes = (
        f"{estimator.num_tasks} tasks, unroll {estimator.unroll_length}, horizon {benchmark.horizon}, "
        f"{estimator.num_inner_steps:,} inner steps per estimate"
    )
    return _facts(
        {
            "task": f"{task['task']} ({', '.join(f'{k} {v}' for k, v in shown.items())})",
            "inner network": f"{problem.num_params:,} parameters",
            "meta-optimizer": f"{problem.optimizer_name}, theta has {problem.num_theta:,} parameters",
            "estimator": f"{estimator_name}, {sizes}",
            "device": str(problem.unroll.device),
            "run folder": str(folder),
        }
    )


def interrupted(overrides: Sequence[str], folder: Path) -> str:
    """How to go on after Ctrl-C, with the overrides of the command line."""
    given = shlex.join(word for word in overrides if not word.startswith("ckpt="))
    return (
        "stopped. The state so far is whole; to go on or to use it:\n"
        f"  python -m learned_opt {given} ckpt={folder}/checkpoints/last.ckpt\n"
        f"  python -m learned_opt.evaluate {given} checkpoint={folder}/theta.safetensors"
    )


def evaluate_and_report(
    problem: Problem, compile: bool, metadata: dict[str, Any], folder: Path, console: Console
) -> float:
    """Compare with tuned baselines, write the files of the run folder, print the table.

    Args:
        problem: the task with the optimizer, trained.
        compile: compile the baselines too.
        metadata: written to ``theta.json`` together with the summary of the comparison.
        folder: run folder.
        console: where to print.

    Returns:
        float: mean held-out loss of the learned optimizer.
    """
    name = problem.optimizer_name
    entries, warnings = compare(problem.unroll, name, problem.benchmark, compile, console.print)
    facts = {**metadata["provenance"], "theta": f"{problem.num_theta:,} parameters"}
    rows = write_report(folder, metadata["task"], entries, name, facts, warnings)
    summaries = tables.summarise(rows)
    evaluation = [dict(zip(tables.HEADINGS, tables.cells(summary), strict=True)) for summary in summaries]
    save_theta(folder, dict(problem.optimizer.named_parameters()), {**metadata, "evaluation": evaluation})
    title = f"{metadata['task']['task']}: {problem.benchmark.num_seeds} held-out seeds, mean ± half of the 95% interval"
    console.print(tables.terminal_table(summaries, title))
    for sentence in [*tables.verdicts(rows, name), *warnings]:
        console.print(sentence, highlight=False)
    console.print(f"written to {folder}: report.md, curves.png, evaluation.json, theta.safetensors", highlight=False)
    return summaries[0]["mean_loss"].mean


def _facts(facts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table

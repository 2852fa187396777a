"""What runs show on the terminal, and the comparison that ends a training."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from learned_opt.compose.inner_problems import Problem
from learned_opt.core import tree
from learned_opt.deploy.parity import verdict
from learned_opt.deploy.weights import save_theta
from learned_opt.estimators.base import GradientEstimator
from learned_opt.evaluation.compare import compare
from learned_opt.evaluation.cost import breakdown
from learned_opt.reporting import cost_comparison, cost_table, tables
from learned_opt.reporting.curves import write_curves
from learned_opt.reporting.run_files import write_report
from learned_opt.reporting.run_page import write_run_page
from learned_opt.reporting.terminal import FittingTable


def first_screen(
    problems: dict[str, Problem],
    estimator_name: str,
    estimators: dict[str, GradientEstimator],
    memory: str,
    folder: Path,
) -> Table:
    """What is about to run."""
    rows = [
        row
        for name in problems
        for row in _of_task(name, problems[name], estimator_name, estimators[name])
    ]
    problem = next(iter(problems.values()))
    rows += [
        ("meta-optimizer", f"{problem.optimizer_name}, theta has {problem.num_theta:,} parameters"),
        ("memory", memory),
        ("device", str(problem.unroll.device)),
        ("run folder", str(folder)),
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def _of_task(
    name: str, problem: Problem, estimator_name: str, estimator: GradientEstimator
) -> list[tuple[str, str]]:
    task, hidden = (
        problem.unroll.family.describe(),
        ("task", "fingerprint", "num_train", "num_test"),
    )
    shown = ", ".join(f"{key} {value}" for key, value in task.items() if key not in hidden)
    sizes = (
        f"{estimator.num_tasks} tasks, unroll {estimator.unroll_length}, horizon {problem.benchmark.horizon}, "
        f"{estimator.num_inner_steps:,} inner steps per estimate"
    )
    return [
        ("task", f"{name} ({shown})"),
        ("inner network", f"{problem.num_params:,} parameters"),
        ("estimator", f"{estimator_name}, {sizes}"),
    ]


def interrupted(overrides: Sequence[str], folder: Path) -> str:
    """How to go on after Ctrl-C, with the overrides of the command line."""
    given = [word for word in overrides if not word.startswith("hydra.run.dir=")]
    of_the_task = [
        word for word in given if not word.startswith("theta=")
    ]  # evaluate takes its own theta
    return (
        "stopped. The state so far is whole; to go on or to use it:\n"
        f"  python -m learned_opt {shlex.join(given)} hydra.run.dir={folder}\n"
        f"  python -m learned_opt evaluate {shlex.join(of_the_task)} checkpoint={folder}/theta.safetensors"
    )


def evaluate_and_report(
    problems: dict[str, Problem],
    compile: bool,
    metadata: dict[str, Any],
    folder: Path,
    console: Console,
) -> float:
    """Compare with tuned baselines on every task, write the files of the run folder, print a table for each.

    Args:
        problems: the tasks with the optimizer, trained.
        compile: compile the baselines too.
        metadata: written to ``theta.json`` together with the summary of the comparison.
        folder: run folder.
        console: where to print.

    Returns:
        float: mean held-out loss of the learned optimizer, averaged over the tasks.
    """
    name, optimizer = next((_label(problem), problem.optimizer) for problem in problems.values())
    comparisons = {}
    for task, problem in problems.items():
        say = partial(console.print, f"{task}:", highlight=False)
        comparisons[task] = compare(problem.heldout, name, problem.benchmark, compile, say)
    facts = {
        **metadata["provenance"],
        "theta": f"{tree.num_elements(dict(optimizer.named_parameters())):,} parameters",
    }
    rows = write_report(folder, metadata["tasks"], comparisons, name, facts)
    write_curves(folder / "curves.csv", comparisons)
    summaries = {task: tables.summarise(own) for task, own in rows.items()}
    evaluation = {task: list(map(tables.as_text, own)) for task, own in summaries.items()}
    warnings = {task: own.warnings for task, own in comparisons.items()}
    facts = {**metadata, "evaluation": evaluation, "warnings": warnings}
    save_theta(folder, dict(optimizer.named_parameters()), facts)
    write_run_page(folder)
    for task, own in summaries.items():
        title = f"{task}: {problems[task].benchmark.num_seeds} held-out seeds, mean ± half of the 95% interval"
        console.print(
            FittingTable(
                tables.HEADINGS, [tables.cells(summary, brief=True) for summary in own], title
            )
        )
        if heldout := tables.heldout_table(rows[task]):
            console.print(FittingTable(list(heldout[0]), [tuple(row.values()) for row in heldout]))
        for sentence in [*tables.verdicts(rows[task], name), *comparisons[task].warnings]:
            console.print(sentence, highlight=False)
    console.print(
        f"written to {folder}: report.html, report.md, evaluation.json, theta.safetensors",
        highlight=False,
    )
    console.print(verdict(optimizer), highlight=False)
    return sum(own[0]["mean_loss"].mean for own in summaries.values()) / len(summaries)


def _label(problem: Problem) -> str:
    """The learned optimizer's name in tables, also where a baseline has the same."""
    name = problem.optimizer_name
    return f"{name}-learned" if name in problem.benchmark.baselines else name


def show_costs(
    console: Console,
    rows: list[dict[str, Any]],
    references: Sequence[str],
    shares: list[dict[str, Any]],
) -> None:
    """Print the costs of one task, and where the time goes where that was asked for."""
    names = cost_table.headings(references)
    for title, group in cost_table.by_title(rows).items():
        console.print(title, style="bold", highlight=False)
        shown = (dict(zip(names, cost_table.cells(row, references), strict=True)) for row in group)
        console.print(tables.plain_table(names, shown))
    if shares:
        console.print("where the time of one compiled outer step goes", style="bold")
        console.print(tables.plain_table(breakdown.HEADINGS, shares))


def show_comparison(console: Console, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Print two tables of costs beside each other."""
    rows, sentences = cost_comparison.compare(now, then)
    console.print(tables.plain_table(cost_comparison.HEADINGS, rows))
    for sentence in sentences:
        console.print(sentence, highlight=False)

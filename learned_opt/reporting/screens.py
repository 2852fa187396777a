"""What runs show on the terminal."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from learned_opt.evaluation import scores
from learned_opt.evaluation.cost import breakdown
from learned_opt.evaluation.curves import write_curves
from learned_opt.evaluation.results import Results, write_evaluation
from learned_opt.reporting import cost_comparison, cost_table, result_tables
from learned_opt.reporting.results_screen import show_tables
from learned_opt.reporting.run_report import write_run_report
from learned_opt.reporting.tables import Table, table_of
from learned_opt.runtime.run_folder import RunFolder


def plain_line(console: Console) -> Callable[[str], None]:
    """Prints a line as it is: neither wrapped nor coloured."""
    return partial(console.print, soft_wrap=True, highlight=False, markup=False)


def facts_grid(facts: Iterable[tuple[str, str]]) -> RichTable:
    """Names and values in two columns, such as what is about to run."""
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")

    for name, value in facts:
        grid.add_row(name, Text(value))
    return grid


def interrupted(overrides: Sequence[str], folder: Path) -> str:
    """How to go on after Ctrl-C, with the overrides of the command line."""
    words = [word for word in overrides if not word.startswith("hydra.run.dir=")]
    return (
        "The state so far is whole; to go on or to use it:\n"
        f"  python -m learned_opt {shlex.join(words)} hydra.run.dir={folder}\n"
        f"  {_evaluate_command(words, folder)}"
    )


def not_compared(overrides: Sequence[str], folder: Path) -> str:
    """How to compare the theta of a run that was not, with the overrides of its command line.

    >>> print(not_compared(["+task=mlp", "benchmark=none"], Path("runs/1")))
    theta is trained, and benchmark=none compares it with nothing; to do so later:
      python -m learned_opt evaluate +task=mlp theta=runs/1/theta.safetensors
    """
    words = [word for word in overrides if word != "benchmark=none"]
    if len(words) == len(overrides):
        words.append("benchmark=default")  # it was a file of debug that said none
    return (
        "theta is trained, and benchmark=none compares it with nothing; to do so later:\n"
        f"  {_evaluate_command(words, folder)}"
    )


def _evaluate_command(overrides: Sequence[str], folder: Path) -> str:
    words = []
    for word in overrides:
        # evaluate takes the theta that this run has come to, and compares it
        if not word.startswith(("hydra.run.dir=", "theta=", "checkpoint=")):
            words.append(word)
    return f"python -m learned_opt evaluate {shlex.join(words)} theta={folder}/theta.safetensors"


def show_report(folder: RunFolder, console: Console) -> None:
    """Write the report of a run that was not compared, and name what was written."""
    names = write_run_report(folder.path)
    plain_line(console)(f"written to {folder.path}: {', '.join(names)}")


def show_results(results: Results, folder: RunFolder, console: Console) -> float:
    """Write what an evaluation came to, and its report; print a table for each setting.

    Args:
        results: of the evaluation.
        folder: of the run.
        console: where to print.

    Returns:
        float: mean held-out loss of the first learned optimizer, over all settings.
    """
    write_evaluation(folder.evaluation, results)
    write_curves(folder.curves, results.curves)
    # behind these two files, as a report is made of files alone
    names = write_run_report(folder.path)

    print_line = plain_line(console)
    show_tables(results, console)
    print_line(f"written to {folder.path}: {', '.join([folder.evaluation.name, *names])}")

    learned = []
    for summary in scores.summarise(results.frame, results.reference):
        if summary["optimizer"] == results.learned[0] and not summary["axis"]:
            learned.append(summary)
    return sum(summary["mean_loss"].mean for summary in learned) / len(learned)


def evaluation_texts(results: Results) -> dict[str, list[dict[str, str]]]:
    """Task -> its table as text by heading, as ``theta.json`` keeps it."""
    texts: dict[str, list[dict[str, str]]] = {}
    for summary in scores.summarise(results.frame, results.reference):
        table = result_tables.comparison_table([summary], result_tables.TERMINAL)
        row = dict(zip(table.headings, table.rows[0], strict=True))
        texts.setdefault(summary["task"], []).append(row)
    return texts


def show_costs(
    console: Console,
    rows: list[dict[str, Any]],
    references: Sequence[str],
    shares: list[dict[str, Any]],
) -> None:
    """Print the costs of one task, and where the time goes where that was asked for.

    Args:
        console: where to print.
        rows: of the bench.
        references: optimizers that the others are compared with.
        shares: rows of ``breakdown``; empty where that was not measured.
    """
    headings = cost_table.headings(references)
    for title, group in cost_table.by_title(rows).items():
        console.print(title, style="bold", highlight=False)
        console.print(Table(headings, [cost_table.cells(row, references) for row in group]))
    if shares:
        console.print("where the time of one compiled outer step goes", style="bold")
        console.print(table_of(breakdown.HEADINGS, shares))


def show_comparison(console: Console, new: dict[str, Any], old: dict[str, Any]) -> None:
    """Print two tables of costs beside each other."""
    rows, sentences = cost_comparison.compare(new, old)
    console.print(table_of(cost_comparison.HEADINGS, rows))

    for sentence in sentences:
        console.print(sentence, highlight=False)

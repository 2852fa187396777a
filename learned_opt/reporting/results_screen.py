"""The tables of an evaluation on a terminal: who is ahead, and what a reader must know."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from learned_opt.evaluation import scores
from learned_opt.evaluation.frames import select
from learned_opt.evaluation.generalisation import first_failures
from learned_opt.evaluation.results import Results
from learned_opt.evaluation.verdicts import verdict_sentences
from learned_opt.reporting import meta_seed_tables, result_tables, score_tables
from learned_opt.reporting.legend import legend
from learned_opt.reporting.result_cards import results_card


def show_tables(results: Results, console: Console) -> None:
    """A table and sentences for each setting, the generalisation cards, and the notes.

    Args:
        results: of the evaluation.
        console: where to print.
    """
    frame = results.frame
    summaries = scores.summarise(frame, results.reference)
    of_tasks = [summary for summary in summaries if not summary["axis"]]
    for task, horizon in dict.fromkeys((s["task"], s["horizon"]) for s in of_tasks):
        group = [s for s in of_tasks if (s["task"], s["horizon"]) == (task, horizon)]
        _show_setting(f"{task}, horizon {horizon}", group, console)

        rows = select(frame, task=task, horizon=horizon, axis="")
        for sentence in verdict_sentences(rows, results.learned):
            _print_line(sentence, console)
        _show_meta_seeds(results, task, horizon, console)

    _show_scores(results, console)
    cards = results_card(results, summaries)
    for task, axes in cards.items():
        table = result_tables.card_table(axes).plain
        console.print(table._replace(title=f"generalisation card of {task}"))
        for sentence in first_failures(axes, results.reference):
            _print_line(sentence, console)

    for sentence in results.warnings:
        _print_line(f"note: {sentence}", console)


def _show_scores(results: Results, console: Console) -> None:
    table = score_tables.score_table(results.frame, brief=True)
    if table is None:
        return

    title = f"{score_tables.HEADING.lower()}, ± half of the 95% interval over held-out seeds"
    console.print()  # apart from the sentences above
    console.print(table._replace(title=title))
    _print_line("score: mean over workloads of max(0, 4 - time / the best one's time) / 3", console)


def _show_meta_seeds(results: Results, task: str, horizon: int, console: Console) -> None:
    summaries, sentences = meta_seed_tables.of_setting(results, task, horizon)
    if not summaries:
        return

    table = meta_seed_tables.meta_seed_table(summaries, brief=True)
    title = f"{task}, horizon {horizon}, over meta-seeds: mean ± half of the 95% interval"
    console.print(table._replace(title=title))
    for sentence in sentences:
        _print_line(sentence, console)


def _show_setting(name: str, summaries: Sequence[Any], console: Console) -> None:
    num_seeds = summaries[0]["num_seeds"]
    title = f"{name}: {num_seeds} held-out seeds, mean ± half of the 95% interval"
    table = result_tables.comparison_table(summaries, result_tables.TERMINAL, brief=True)
    console.print(table._replace(title=title))

    lines = legend(summaries)
    for line in lines:
        _print_line(line, console)
    if lines:
        console.print()

    heldout = result_tables.heldout_table(summaries)
    if heldout:
        console.print(heldout)


def _print_line(text: str, console: Console) -> None:
    """Print a line as it is: neither wrapped nor coloured."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)

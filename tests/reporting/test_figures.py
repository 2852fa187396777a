"""One figure reads alike everywhere: labels, formats, and the table that they come from."""

import math

import pytest

from learned_opt.core.figures import FIGURES, HELDOUT, OUTER, UPDATES, figure
from learned_opt.evaluation import behaviour, results
from learned_opt.evaluation.intervals import Interval
from learned_opt.reporting import numbers, result_tables, run_report, sweep_report, wandb_panels


def test_every_figure_has_one_name_and_one_label() -> None:
    figures = (*HELDOUT, *OUTER, *UPDATES)
    assert len(FIGURES) == len(figures)
    labels = [one.label for one in figures]
    assert len(set(labels)) == len(labels)
    assert {one.better for one in figures} == {"lower", "higher", ""}


def test_all_that_is_measured_or_shown_is_in_the_table() -> None:
    named = {*result_tables.PAGE, *result_tables.TERMINAL, *sweep_report.FIGURES}
    named |= {*results.LOSSES, *results.LATE, *wandb_panels.LOSSES}
    named |= {*run_report.OUTER, *run_report.SUMMED_UP}
    assert named <= set(FIGURES)
    assert [one.name for one in UPDATES] == list(behaviour.QUANTITIES)
    assert figure("bits_per_byte").label == "bits per byte"  # of a task of a user's own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.interval(Interval(0.12345, 0.1, 0.2)), "0.1235 [0.1000, 0.2000]"),
        (numbers.interval(Interval(0.12345, 0.1, 0.2), 2, brief=True), "0.12 ±0.05"),
        (numbers.interval(Interval(1.0, -0.5, 2.5), 1, signed=True), "+1.0 [-0.5, +2.5]"),
        (numbers.interval(Interval(math.inf, math.inf, math.inf)), "diverged"),
        (numbers.interval(Interval(1.0, 0.5, math.inf), 1), "1.0 [0.5, inf]"),
        (numbers.interval(None), "-"),
        (numbers.number(None), "-"),
        (numbers.number(math.inf), "diverged"),
        (numbers.learning_rate(3.9810717), "3.98"),
        (numbers.learning_rate(math.nan), "-"),
    ],
)
def test_numbers_are_written_by_one_rule(text, expected) -> None:
    assert text == expected

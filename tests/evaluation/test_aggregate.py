"""Statistics over tasks: by hand, and coverage of the intervals."""

import math

import numpy as np
import pytest

from learned_opt.evaluation.aggregate import iqm, profile, stratified_iqm, win_matrix


def test_the_interquartile_mean_by_hand() -> None:
    assert iqm([8, 1, 7, 2, 6, 3, 5, 4]) == (3 + 4 + 5 + 6) / 4
    assert iqm([[1, 2], [3, math.inf]]) == 2.5
    assert iqm([1, math.inf, math.inf, math.inf]) == math.inf


@pytest.mark.parametrize("num_seeds", [8, 12, 32])
def test_the_stratified_interval_covers_the_mean_as_often_as_it_says(num_seeds) -> None:
    """Tasks differ in mean and scale.

    Plain percentiles covered 89.0, 92.5 and 94.3% of 1,000 cases.
    """
    source = np.random.default_rng(0)
    repeats = 400
    means = [0.0, 1.0, 5.0]
    scales = [0.5, 1.0, 2.0]
    truth = iqm(source.normal(means, scales, (400_000, 3)))
    drawn = source.normal(means, scales, (repeats, num_seeds, 3))
    intervals = [stratified_iqm(list(sample.T), num_resamples=300) for sample in drawn]
    coverage = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    error = math.sqrt(0.95 * 0.05 / repeats)  # 1.1 per cent
    assert 0.95 - 2 * error < coverage < 0.95 + 3 * error
    centre = np.mean([interval.mean for interval in intervals])
    assert centre == pytest.approx(truth, abs=0.02)


def test_seeds_are_drawn_again_within_their_task_alone() -> None:
    """Tasks that are far apart but constant over seeds have no uncertainty.

    Drawn across tasks they would have.
    """
    interval = stratified_iqm([[1.0] * 4, [100.0] * 4, [3.0] * 4, [2.0] * 4])
    assert interval == (2.5, 2.5, 2.5)
    ragged = stratified_iqm([[1.0] * 3, [2.0] * 5])
    assert ragged.mean == pytest.approx((1.0 + 3 * 2.0) / 4)
    with pytest.raises(ValueError, match="at least one value"):
        stratified_iqm([[]])


def test_runs_that_diverge_show_in_the_interval() -> None:
    interval = stratified_iqm([[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.inf, math.inf]])
    assert (interval.mean, interval.low, interval.high) == (1.0, 1.0, math.inf)


COSTS = {"a": [10, 20, math.inf], "b": [20, 20, math.inf], "c": [40, math.inf, math.inf]}


def test_the_profile_of_three_solvers_on_three_problems_by_hand() -> None:
    shares = profile(COSTS, [1, 2, 4])
    third = 1 / 3
    assert {name: list(values) for name, values in shares.items()} == {
        # the best of problems 1 and 2; 3 is solved by nobody
        "a": pytest.approx([2 * third, 2 * third, 2 * third]),
        "b": pytest.approx([third, 2 * third, 2 * third]),
        "c": pytest.approx([0, 0, third]),
    }


def test_the_win_matrix_of_three_solvers_on_three_problems_by_hand() -> None:
    losses = {"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 2.0], "c": [3.0, 1.0, math.inf]}
    wins = win_matrix({name: {"task": values} for name, values in losses.items()})
    assert wins["a"] == {"b": pytest.approx(1.5 / 3), "c": pytest.approx(2 / 3)}
    assert wins["b"] == {"a": pytest.approx(1.5 / 3), "c": pytest.approx(2 / 3)}
    assert wins["c"] == {"a": pytest.approx(1 / 3), "b": pytest.approx(1 / 3)}


def test_wins_are_over_the_tasks_that_both_have() -> None:
    wins = win_matrix(
        {"a": {"one": [1.0], "two": [9.0]}, "b": {"one": [2.0]}, "c": {"three": [0.0]}}
    )
    assert wins["a"]["b"] == 1.0
    assert math.isnan(wins["a"]["c"])

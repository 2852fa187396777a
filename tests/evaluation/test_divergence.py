"""What tables say of runs that diverge or never reach a target, by hand."""

import math

import pandas as pd
import pytest

from learned_opt.evaluation import scores
from learned_opt.evaluation.intervals import Interval
from learned_opt.evaluation.verdicts import verdict_sentences
from learned_opt.reporting.result_tables import comparison_table
from tests.evaluation.test_suite import cell

COLUMNS = {"task": "t", "horizon": 40, "axis": "", "point": ""}
SOUND = [1.0, 1.1, 0.9, 1.0]
WORSE = [2.0, 2.1, 1.9, 2.2]
ONE_LOST = [0.1, 0.1, 0.1, math.inf]
TWO_LOST = [0.1, 0.1, math.inf, math.inf]


def frame_of(**losses: list[float]) -> pd.DataFrame:
    rows = []
    for name, values in losses.items():
        for seed, loss in enumerate(values):
            figures = {"mean_loss": loss, "final_loss": loss}
            rows.append({"optimizer": name, "seed": seed, **figures})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("mine", "rival", "gap", "words"),
    [
        (SOUND, WORSE, None, "mine is ahead of adam, difference -"),
        (WORSE, SOUND, None, "mine is behind adam, difference +"),
        (ONE_LOST, WORSE, math.inf, "mine is behind adam: mine diverged on 1 of 4 seeds"),
        (SOUND, ONE_LOST, -math.inf, "mine is ahead of adam: adam diverged on 1 of 4 seeds"),
        (
            ONE_LOST,
            TWO_LOST,
            0.0,
            "mine is level with adam: mine diverged on 1 of 4 seeds and adam diverged on 2 of 4",
        ),
    ],
)
def test_divergence_is_worse_than_any_number(mine, rival, gap, words) -> None:
    """Either side, both, none: no sentence has an infinite difference in it."""
    if gap is not None:
        assert scores.paired_or_diverged(mine, rival) == Interval(gap, gap, gap)

    sentences = verdict_sentences(frame_of(mine=mine, adam=rival), ["mine"])
    assert len(sentences) == 2
    for sentence in sentences:
        assert words in sentence
        assert "inf" not in sentence
        assert "nan" not in sentence


def test_the_best_of_baselines_that_all_diverge_is_that_which_does_so_least() -> None:
    """The learned optimizer is ahead of all of them."""
    frame = frame_of(mine=WORSE, sgdm=TWO_LOST, adam=[9.0, 9.0, 9.0, math.inf], lion=TWO_LOST)
    for sentence in verdict_sentences(frame, ["mine"]):
        assert "mine is ahead of adam: adam diverged on 1 of 4 seeds" in sentence


def curve(step: int | None) -> list[float]:
    """Training losses whose trailing mean of 10 reaches 1 at a step; never for None."""
    return [2.0] * 40 if step is None else [2.0] * (step - 10) + [1.0] * (50 - step)


def summary_of(reference: list[list[float]], mine: list[list[float]]) -> dict:
    by_row = {"adam": cell(*reference, lr=0.1), "mine": cell(*mine)}
    frame = scores.rows(COLUMNS, by_row, "adam", {"adam": 1.0, "mine": 2.0})
    (summary,) = [row for row in scores.summarise(frame, "adam") if row["optimizer"] == "mine"]
    return summary


def test_a_run_that_never_gets_there_counts_as_infinite_in_the_median() -> None:
    """Of 32 runs 17 get there: the median is between the 16th and the 17th of all.

    It is not that of the 17, which would be 19.
    """
    steps = [*range(11, 28), *[None] * 15]
    summary = summary_of([curve(40)] * 32, [curve(step) for step in steps])
    assert (summary["reached"], summary["with_target"]) == (17, 32)
    assert summary["steps_to_target"] == (26 + 27) / 2
    (row,) = comparison_table([summary], ["steps_to_target", "seconds_to_target"]).rows
    assert row == ["mine", "26 (17/32)", "0.053"]

    fewer = summary_of([curve(40)] * 4, [curve(step) for step in (12, 20, None, None)])
    (row,) = comparison_table([fewer], ["steps_to_target", "seconds_to_target"]).rows
    assert row == ["mine", ">40 (2/4)", "never"]


def test_no_run_reaches_a_target_that_diverged() -> None:
    """Where the reference diverged there is no target, for a run that diverged there too."""
    lost = [2.0] * 5 + [math.inf] * 35
    summary = summary_of([curve(40), lost, lost], [curve(12), lost, curve(15)])
    assert (summary["reached"], summary["with_target"]) == (1, 1)
    assert summary["steps_to_target"] == 12
    nothing = summary_of([lost, lost], [lost, curve(12)])
    (row,) = comparison_table([nothing], ["steps_to_target"]).rows
    assert row == ["mine", "-"]


def test_summaries_are_ahead_or_behind_by_divergence_alone() -> None:
    lost = [2.0] * 5 + [math.inf] * 35
    assert summary_of([curve(40), curve(40)], [curve(12), lost])["behind"]
    assert summary_of([curve(40), lost], [curve(None), curve(None)])["ahead"]
    level = summary_of([curve(40), lost], [lost, curve(12)])
    assert not level["ahead"]
    assert not level["behind"]

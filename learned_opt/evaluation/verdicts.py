"""Who is ahead of whom, as sentences."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.scores import paired_or_diverged

AHEAD = "ahead of"
LEVEL = "level with"
BEHIND = "behind"
FIGURES = ("mean_loss", "final_loss")
TEST_LOSS = "test_loss"  # column of tasks that measure one on held-out data


class Verdict(NamedTuple):
    """How a learned optimizer does at one setting, against the best baseline for a loss.

    Args:
        figure: ``mean_loss``, ``final_loss`` or ``test_loss``.
        name: of the learned optimizer.
        rival: the baseline.
        word: ``AHEAD``, ``LEVEL`` or ``BEHIND``, by the interval of the paired difference.
        details: the difference with its interval, or which runs diverged.
    """

    figure: str
    name: str
    rival: str
    word: str
    details: str

    @property
    def sentence(self) -> str:
        """The verdict, for people."""
        label = self.figure.replace("_", " ")
        return f"{label}: {self.name} is {self.word} {self.rival}{self.details}"


def verdict_sentences(frame: pd.DataFrame, learned: Sequence[str]) -> list[str]:
    """For each learned optimizer and loss one sentence: against the best baseline for that loss.

    Args:
        frame: rows of one setting.
        learned: names of the learned optimizers, those that a sentence is about.
    """
    reached = verdicts(frame, learned)
    if not reached:
        names = distinct(frame, "optimizer")
        asked = [name for name in learned if name in names]
        return [f"no baseline was run, so that {name} is compared with nothing" for name in asked]
    return [verdict.sentence for verdict in reached]


def verdicts(
    frame: pd.DataFrame, learned: Sequence[str], figures: Sequence[str] = FIGURES
) -> list[Verdict]:
    """The verdict on each learned optimizer and loss; none where no baseline was run.

    Args:
        frame: rows of one setting.
        learned: names of the learned optimizers.
        figures: the losses, columns of the frame.
    """
    names = distinct(frame, "optimizer")
    baselines = [name for name in names if name not in learned]
    asked = [name for name in learned if name in names]
    if not baselines:
        return []

    reached = []
    for name in asked:
        for figure in figures:
            losses_of = {}
            for other in (name, *baselines):
                losses_of[other] = select(frame, optimizer=other)[figure].tolist()

            best = min(baselines, key=lambda other: _badness(losses_of[other]))
            reached.append(_verdict(figure, name, best, losses_of[name], losses_of[best]))

    return reached


def _badness(losses_of: list[float]) -> tuple[int, float]:
    """Key of an order in which runs that diverged count first, the others by their sum."""
    finite = [loss for loss in losses_of if math.isfinite(loss)]
    return len(losses_of) - len(finite), sum(finite)


def _verdict(
    figure: str, name: str, rival: str, losses_of: list[float], rival_losses: list[float]
) -> Verdict:
    difference = paired_or_diverged(losses_of, rival_losses)
    if difference.high < 0:
        word = AHEAD
    elif difference.low > 0:
        word = BEHIND
    else:
        word = LEVEL

    diverged = [_divergence(name, losses_of), _divergence(rival, rival_losses)]
    if any(diverged):
        # there is no difference between numbers to be told
        reasons = " and ".join(filter(None, diverged))
        return Verdict(figure, name, rival, word, f": {reasons}")

    interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    details = f", difference {interval} (paired over seeds)"
    return Verdict(figure, name, rival, word, details)


def _divergence(name: str, losses_of: list[float]) -> str:
    """How many runs diverged; empty where none did."""
    num_diverged, _ = _badness(losses_of)
    return f"{name} diverged on {num_diverged} of {len(losses_of)} seeds" if num_diverged else ""

"""Who is ahead of whom, as sentences."""

import math
from collections.abc import Sequence

import pandas as pd

from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.scores import paired_or_diverged


def verdict_sentences(frame: pd.DataFrame, learned: Sequence[str]) -> list[str]:
    """For each learned optimizer and loss one sentence: against the best baseline for that loss.

    Args:
        frame: rows of one setting.
        learned: names of the learned optimizers, those that a sentence is about.
    """
    names = distinct(frame, "optimizer")
    baselines = [name for name in names if name not in learned]
    asked = [name for name in learned if name in names]
    if not baselines:
        return [f"no baseline was run, so that {name} is compared with nothing" for name in asked]

    sentences = []
    for name in asked:
        for figure in ("mean_loss", "final_loss"):
            losses_of = {}
            for other in (name, *baselines):
                losses_of[other] = select(frame, optimizer=other)[figure].tolist()

            best = min(baselines, key=lambda other: _badness(losses_of[other]))
            sentences.append(_verdict(figure, name, best, losses_of[name], losses_of[best]))

    return sentences


def _badness(losses_of: list[float]) -> tuple[int, float]:
    """Key of an order in which runs that diverged count first, the others by their sum."""
    finite = [loss for loss in losses_of if math.isfinite(loss)]
    return len(losses_of) - len(finite), sum(finite)


def _verdict(
    figure: str, name: str, rival: str, losses_of: list[float], rival_losses: list[float]
) -> str:
    difference = paired_or_diverged(losses_of, rival_losses)
    if difference.high < 0:
        word = "ahead of"
    elif difference.low > 0:
        word = "behind"
    else:
        word = "level with"

    label = figure.replace("_", " ")
    diverged = [_divergence(name, losses_of), _divergence(rival, rival_losses)]
    if any(diverged):
        # there is no difference between numbers to be told
        reasons = " and ".join(filter(None, diverged))
        return f"{label}: {name} is {word} {rival}: {reasons}"

    interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{label}: {name} is {word} {rival}, difference {interval} (paired over seeds)"


def _divergence(name: str, losses_of: list[float]) -> str:
    """How many runs diverged; empty where none did."""
    num_diverged, _ = _badness(losses_of)
    return f"{name} diverged on {num_diverged} of {len(losses_of)} seeds" if num_diverged else ""

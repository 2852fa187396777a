"""The generalisation cards of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from learned_opt.evaluation import meta_seeds
from learned_opt.evaluation.generalisation import Point, card
from learned_opt.evaluation.results import Results


def results_card(
    results: Results, summaries: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Task -> axis -> learned optimizer -> its points.

    An optimizer of several meta-trainings is one column, judged by the interval over both levels.

    Args:
        results: of the evaluation.
        summaries: of ``scores.summarise``.
    """
    trainings = results.meta_trainings
    over_seeds = meta_seeds.summarise(results.frame, trainings, results.reference)
    names = [name for name in results.learned if name not in trainings]
    names += meta_seeds.optimizers(trainings)

    left_out = []
    for cell in results.left_out:
        row = cell["optimizer"]
        name = trainings[row].optimizer if row in trainings else row
        left_out.append({**cell, "optimizer": name})
    return card([*summaries, *over_seeds], left_out, names, results.reference)

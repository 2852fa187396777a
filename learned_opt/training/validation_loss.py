"""The validation loss that a meta-training came to, from its metrics."""

import math
from pathlib import Path

from learned_opt.training.whole_lines import read_rows


def last(metrics: Path, labels: list[str]) -> float | None:
    """Mean over the tasks of the last validation loss; infinite where one is not finite.

    None where nothing was validated: without ``callbacks.validation`` or ``logger.csv``, or when
    the checkpoint that it goes on from has all its outer steps.

    Args:
        metrics: ``metrics.csv`` of the run.
        labels: of the tasks.
    """
    rows = read_rows(metrics, "step")
    losses = []
    for label in labels:
        column = f"meta_loss/valid/{label}" if label else "meta_loss/valid"
        values = [row[column] for row in rows if row.get(column)]
        if not values:
            return None
        losses.append(float(values[-1]))
    return sum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf

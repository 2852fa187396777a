"""The inner loss curves of a comparison as one long table."""

import csv
from collections.abc import Mapping
from pathlib import Path

from learned_opt.evaluation.compare import Comparison

COLUMNS = ("task", "seed", "optimizer", "step", "loss")  # of curves.csv


def write_curves(path: Path, comparisons: Mapping[str, Comparison]) -> None:
    """Write the training loss of every inner step of every held-out run, ``inf`` from where it diverged.

    Args:
        path: CSV to write.
        comparisons: by task.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task, comparison in comparisons.items():
            for name, entry in comparison.entries.items():
                for seed, losses in enumerate(entry.runs.losses.T.tolist()):
                    writer.writerows(
                        (task, seed, name, step, f"{loss:.6g}") for step, loss in enumerate(losses)
                    )

"""The training loss of every held-out run at every inner step: ``curves.parquet``.

Legend: T inner steps, M seeds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learned_opt.core.files import write_whole
from learned_opt.evaluation.frames import groups

COLUMNS = ["task", "horizon", "optimizer", "seed", "losses"]
# (task, horizon) -> optimizer -> (T, M), infinite from where a run diverged
Curves = dict[tuple[str, int], dict[str, NDArray[np.floating]]]


def write_curves(path: Path, curves: Curves) -> None:
    """Write the training losses of every held-out run, one row for each, as Parquet.

    Args:
        path: the file.
        curves: (task, horizon) -> optimizer -> ``(T, M)``; infinite from where a run diverged.
    """
    rows = []
    for (task, horizon), losses_of in curves.items():
        for optimizer, losses in losses_of.items():
            for seed, losses_of_seed in enumerate(losses.T.astype(np.float32)):
                rows.append((task, horizon, optimizer, seed, losses_of_seed))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    write_whole(path, frame.to_parquet(index=False))


def read_curves(path: Path) -> Curves:
    """Read what ``write_curves`` has written.

    Raises:
        ValueError: the file is damaged or of something else.
    """
    try:
        frame = pd.read_parquet(path, columns=COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or holds no learning curves: {error}.") from error

    curves: Curves = {}
    for (task, horizon, optimizer), rows in groups(frame, COLUMNS[:3]):
        losses = np.stack(rows["losses"].tolist(), 1).astype(float)  # (T, M)
        curves.setdefault((str(task), int(horizon)), {})[str(optimizer)] = losses
    return curves

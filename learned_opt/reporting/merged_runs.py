"""The rows and curves of several runs on one task, each optimizer once.

A learned optimizer has the label of its run, a baseline its name.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from learned_opt.evaluation.curves import Curves
from learned_opt.evaluation.frames import distinct, select
from learned_opt.reporting.record import Record

# relative difference between losses of one baseline run twice, on other numbers of threads, say
SAME = 1e-4


def merged(runs: dict[str, Record], task: str) -> tuple[pd.DataFrame, Curves]:
    """Rows and curves of all runs on a task.

    The learned optimizers have the labels of their runs. A baseline that came out the same in
    several runs is there once, else once for each, with the run's label.
    """
    baselines: dict[str, pd.DataFrame] = {}  # shown name -> rows
    frames = []
    baseline_frames = []
    curves: Curves = {}
    for label, record in runs.items():
        of_run = select(record.frame, task=task)
        learned = record.results.learned if record.results else []
        for name in distinct(of_run, "optimizer"):
            rows = select(of_run, optimizer=name)
            if name in learned:
                shown = _shown(name, label, learned)
                frames.append(rows.assign(optimizer=shown))
            elif any(_same(rows, others) for others in baselines.values()):
                continue
            else:
                shown = f"{name} of {label}" if name in baselines else name
                baselines[shown] = rows
                baseline_frames.append(rows.assign(optimizer=shown))

            _take_curves(curves, record, task, name, shown)

    # the learned optimizers first: tables and colours follow the order of the rows
    frame = pd.concat([*frames, *baseline_frames], ignore_index=True)
    return frame, _in_order_of(frame, curves)


def learned_names(runs: Mapping[str, Record]) -> list[str]:
    """What the learned optimizers of runs are called in their merged rows."""
    names = []
    for label, record in runs.items():
        learned = record.results.learned if record.results else []
        names += [_shown(name, label, learned) for name in learned]
    return names


def _shown(name: str, label: str, learned: Sequence[str]) -> str:
    return label if len(learned) == 1 else f"{name} of {label}"


def _take_curves(curves: Curves, record: Record, task: str, name: str, shown: str) -> None:
    all_curves = record.results.curves if record.results else {}
    for (other, horizon), losses in all_curves.items():
        if other == task and name in losses:
            curves.setdefault((task, horizon), {})[shown] = losses[name]


def _in_order_of(frame: pd.DataFrame, curves: Curves) -> Curves:
    """Curves in the order of the rows, so that an optimizer has one colour in all pictures."""
    order = distinct(frame, "optimizer")
    sorted_curves: Curves = {}
    for setting, losses in curves.items():
        sorted_curves[setting] = {name: losses[name] for name in order if name in losses}
    return sorted_curves


def _same(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    """Whether two baselines are one: name, learning rate, horizon, and the loss on every seed."""
    keys = ["optimizer", "horizon", "learning_rate", "seed"]
    left_keys = left[keys].reset_index(drop=True)
    if not left_keys.equals(right[keys].reset_index(drop=True)):
        return False
    left_losses = left["mean_loss"].tolist()
    return all(map(_close, left_losses, right["mean_loss"].tolist()))


def _close(left: float, right: float) -> bool:
    return left == right or abs(left - right) <= SAME * abs(left)

"""One task of a meta-training, as its callbacks see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.inner.unroll import Unroll


@dataclass(frozen=True)
class InnerProblem:
    """What callbacks validate and observe, and what recipes of replays are made of.

    Args:
        task: name of the task.
        unroll: the inner loop on the task as it is, without augmentation.
        horizon: inner steps of one inner training.
        num_chains: validation seeds, which run side by side.
        estimator: estimates the meta-gradient of this task alone, over all processes.
        config: plain values from which a replay builds the task again.
    """

    task: str
    unroll: Unroll
    horizon: int
    num_chains: int
    estimator: SharedEstimator
    config: dict[str, Any] = field(default_factory=dict)


def labels(problems: Mapping[str, Any]) -> list[str]:
    """What tells the tasks of a run apart: their names; one alone needs none.

    >>> labels({"mlp": 1}), labels({"mlp": 1, "cnn": 2})
    ([''], ['mlp', 'cnn'])
    """
    return list(problems) if len(problems) > 1 else [""]

"""How much memory an estimate needs, before it runs: tiny estimates are traced, and larger ones follow from them.

Legend: N tasks, K unroll length.
"""

from collections.abc import Callable
from dataclasses import dataclass

from learned_opt.core.live_bytes import LiveBytes
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator

TASKS, LENGTHS = (
    (1, 2),
    (2, 3),
)  # N and K of the traced estimates; one step alone is not yet typical


@dataclass(frozen=True)
class Footprint:
    """Peak bytes of one estimate, chains included: ``fixed + N task + K step + N K task_step``.

    Args:
        fixed: whatever N and K are.
        task: for each task: the state of its chains, its perturbations, and what a step of them needs in between.
        step: for each step of the unroll.
        task_step: for each step of each task: batches, and what backpropagation keeps.
    """

    fixed: int
    task: int
    step: int
    task_step: int

    def peak_bytes(self, num_tasks: int, unroll_length: int) -> int:
        """Predicted peak."""
        return (
            self.fixed
            + num_tasks * self.task
            + unroll_length * (self.step + num_tasks * self.task_step)
        )


def footprint(make: Callable[[int, int], GradientEstimator], theta: Tree) -> Footprint:
    """Trace four tiny estimates, N = 1, 2 and K = 2, 3, and solve for the four terms.

    The prediction is that of eager execution. A compiled step keeps fewer tensors in between, so for that it is an
    upper bound.

    Args:
        make: ``(num_tasks, unroll_length) ->`` an estimator whose inner loop is not compiled and whose chains restart
            after every unroll: a restart, when old and new chains exist together, counts too.
        theta: meta-parameters.
    """
    peaks = [[_traced_peak(make(n, k), theta) for k in LENGTHS] for n in TASKS]
    (n, _), (k, _) = TASKS, LENGTHS
    task_step = peaks[1][1] - peaks[1][0] - peaks[0][1] + peaks[0][0]
    task = peaks[1][0] - peaks[0][0] - k * task_step
    step = peaks[0][1] - peaks[0][0] - n * task_step
    return Footprint(peaks[0][0] - n * task - k * step - n * k * task_step, task, step, task_step)


def _traced_peak(estimator: GradientEstimator, theta: Tree) -> int:
    with LiveBytes() as live:
        state = estimator.init_state(theta, generator("footprint"))
        for number in range(2):  # the second begins with a restart
            _, state = estimator.estimate(theta, state, generator("footprint", number))
    return live.peak

"""How much memory an estimate needs, before it runs.

Tiny estimates are traced, and larger ones follow from them.

Legend: N tasks (pairs in evolution strategies), K inner steps of an unroll.
"""

from collections.abc import Callable
from dataclasses import dataclass

from learned_opt.core.live_bytes import LiveBytes
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator

NUM_TASKS = (1, 2)  # N of the traced estimates
# K of the traced estimates; two inner steps are not yet typical, one of them has no theta behind it
LENGTHS = (3, 4)


@dataclass(frozen=True)
class Footprint:
    """Peak bytes of one estimate, chains included: ``fixed + N task + K step + N K task_step``.

    Args:
        fixed: whatever N and K are.
        task: for each task: the state of its chains, its perturbations, and what an inner step
            of them needs in between.
        step: for each inner step of the unroll.
        task_step: for each inner step of each task: batches, and what backpropagation keeps.
    """

    fixed: int
    task: int
    step: int
    task_step: int

    def peak_bytes(self, num_tasks: int, unroll_length: int) -> int:
        """Predicted peak of an estimate.

        >>> Footprint(fixed=100, task=10, step=1, task_step=2).peak_bytes(3, 5)
        165
        """
        of_tasks = num_tasks * self.task
        of_steps = unroll_length * (self.step + num_tasks * self.task_step)
        return self.fixed + of_tasks + of_steps


def footprint(make: Callable[[int, int], GradientEstimator], theta: Tree) -> Footprint:
    """Trace four tiny estimates, N = 1, 2 and K = 3, 4, and solve for the four terms.

    The prediction is that of eager execution. A compiled step keeps fewer tensors in between, so
    for that it is an upper bound; where it is differentiated, about what it needs.

    Args:
        make: ``(num_tasks, unroll_length) ->`` an estimator whose inner loop is not compiled and
            whose chains restart after every unroll: a restart, when old and new chains exist
            together, counts too.
        theta: meta-parameters.
    """
    peaks = {}
    for num_tasks in NUM_TASKS:
        for length in LENGTHS:
            peaks[num_tasks, length] = _traced_peak(make(num_tasks, length), theta)

    n, one_more_n = NUM_TASKS
    k, one_more_k = LENGTHS
    with_task = peaks[one_more_n, k] - peaks[n, k]
    with_step = peaks[n, one_more_k] - peaks[n, k]
    with_both = peaks[one_more_n, one_more_k] - peaks[n, k]

    task_step = with_both - with_task - with_step
    task = with_task - k * task_step
    step = with_step - n * task_step
    fixed = peaks[n, k] - n * task - k * step - n * k * task_step
    return Footprint(fixed, task, step, task_step)


def _traced_peak(estimator: GradientEstimator, theta: Tree) -> int:
    with LiveBytes() as live:
        state = estimator.init_state(theta, generator("footprint"))
        for number in range(2):  # the second begins with a restart
            _, state = estimator.estimate(theta, state, generator("footprint", number))
    return live.peak

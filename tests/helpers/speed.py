"""How fast compiled meta-training is: ``python -m tests.helpers.speed FOLDER NUMBER SECONDS``.

It compiles, writes a file into the folder, waits until NUMBER files lie there, goes on until the
choice of threads has met them, and prints the inner steps a second of the SECONDS that follow.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

from learned_opt.core.threads import PAUSE
from learned_opt.estimators.pes import PES
from learned_opt.estimators.single_process import as_shared
from learned_opt.evaluation.cost.timing import OuterStep
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import PointwiseUNFLinear
from tasks.data.embedded import digits
from tasks.networks.mlp import MLP
from tasks.supervised import Classification


def main(folder: Path, number: int, seconds: float) -> None:
    """Compile, meet the others, measure."""
    task = Classification("digits", partial(MLP, hidden_sizes=[32]), digits(), batch_size=128)
    _, spec = symmetry_of(task)
    optimizer = UNFOptimizer(spec, head=PointwiseUNFLinear)
    unroll = Unroll(task, optimizer)
    pes = as_shared(PES(unroll, Constant(200), num_tasks=16, unroll_length=50, sigma=0.03))

    step = OuterStep(pes, unroll)
    step(0)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < number:
        time.sleep(0.01)

    _steps_a_second(step, 2 * PAUSE)
    print(pes.num_inner_steps * _steps_a_second(step, seconds))


def _steps_a_second(step: OuterStep, seconds: float) -> float:
    start = time.perf_counter()
    end = start
    count = 0
    while end < start + seconds:
        count += 1
        step(count)
        end = time.perf_counter()
    return count / (end - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))

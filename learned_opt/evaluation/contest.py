"""Several inner networks of one task, each trained by a tuned hand-designed optimizer.

All are trained on the same held-out seeds.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.benchmark import Benchmark, tune_for
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.seeded_runs import HELDOUT, Runs, run_seeds
from learned_opt.evaluation.step_times import time_steps
from learned_opt.evaluation.tuning import theta_at
from learned_opt.inner.unroll import Unroll
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

FIGURES = ("final_loss", "test_loss", "accuracy")


class Contender(NamedTuple):
    """A network with the baseline and the learning rate that train it best.

    Args:
        optimizer: name of the baseline.
        lr: its learning rate.
        unroll: its inner loop.
        theta: of the baseline at this learning rate.
        score: final training loss on the tuning seeds.
    """

    optimizer: str
    lr: float
    unroll: Unroll
    theta: Tree
    score: float


def contest(
    families: Mapping[str, tuple[TaskFamily, PermutationSpec]],
    benchmark: Benchmark,
    compile: bool,
    device: str,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Tune, train and evaluate every network.

    Args:
        families: name -> the task with that network, and its permutation spec.
        benchmark: optimizers, learning rates, seeds and horizon.
        compile: compile the inner steps.
        device: where to train.
        progress: told of the runs as they go on.

    Returns:
        list: one row per network with the figures of every seed.
    """
    num_seeds = benchmark.num_seeds
    num_chains = benchmark.num_chains

    rows = []
    for name, (family, spec) in families.items():
        num_tuning_runs = len(benchmark.baselines) * benchmark.num_tuning_runs
        progress.begin(name, num_tuning_runs + num_seeds)
        best = _tuned(family, spec, benchmark, compile, device, progress)

        progress.work_on(f"held-out seeds with {best.optimizer}, lr {best.lr:.3g}")
        many = tree.expand(best.theta, num_seeds)  # one theta for each seed
        seeds = benchmark.heldout_seeds
        horizon = benchmark.horizon
        runs = run_seeds(best.unroll, many, HELDOUT, seeds, horizon, num_chains, progress)
        milliseconds = time_steps({name: (best.unroll, best.theta)}, num_chains)

        row = {
            "network": name,
            "parameters": sum(leaf[0].numel() for leaf in tree.leaves(runs.params)),
            "optimizer": best.optimizer,
            "lr": best.lr,
            "ms/step": milliseconds[name],
        }
        rows.append({**row, **_figures(runs)})

    return rows


def _tuned(
    family: TaskFamily,
    spec: PermutationSpec,
    benchmark: Benchmark,
    compile: bool,
    device: str,
    progress: Progress,
) -> Contender:
    """The baseline and learning rate of the lowest final training loss."""
    contenders = []
    for name, constructor in benchmark.baselines.items():
        unroll = Unroll(family, constructor(spec), compile, device)
        progress.work_on(f"tuning {name}")
        tuned = tune_for(benchmark, unroll, constructor, progress)
        lr = tuned.best("final_loss")
        theta = tree.to(theta_at(constructor, unroll.optimizer, lr), unroll.device)
        score = float(tuned.scores["final_loss"].min())
        contenders.append(Contender(name, lr, unroll, theta, score))

    return min(contenders, key=lambda contender: contender.score)


def _figures(runs: Runs) -> dict[str, list[float]]:
    figures = {"final_loss": runs.final_loss.tolist()}
    for name, values in runs.heldout.items():
        if name in FIGURES:
            figures[name] = values.tolist()
    return figures

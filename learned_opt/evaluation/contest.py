"""Several inner networks of one task, each trained by a tuned hand-designed optimizer on the same held-out seeds."""

from collections.abc import Callable, Mapping
from typing import Any

from learned_opt.core import tree
from learned_opt.evaluation.benchmark import Benchmark, tune_for
from learned_opt.evaluation.seeded_runs import Runs, run_seeds
from learned_opt.evaluation.step_times import time_steps
from learned_opt.evaluation.tuning import theta_at
from learned_opt.inner.unroll import Unroll
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

FIGURES = ("final_loss", "test_loss", "accuracy")


def contest(
    families: Mapping[str, tuple[TaskFamily, PermutationSpec]],
    benchmark: Benchmark,
    compile: bool,
    device: str,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Tune, train and evaluate every network.

    Args:
        families: name -> the task with that network, and its permutation spec.
        benchmark: optimizers, learning rates, seeds and horizon.
        compile: compile the inner steps.
        device: where to train.
        say: called with a line on what is being done.

    Returns:
        list: one row per network with the figures of every seed.
    """
    rows = []
    for name, (family, spec) in families.items():
        say(f"{name}: tuning")
        label, lr, unroll, theta = _tuned(family, spec, benchmark, compile, device)
        say(f"{name}: {benchmark.num_seeds} held-out seeds with {label}, lr {lr:.3g}")
        seeds = range(benchmark.num_seeds)
        many = tree.expand(theta, len(seeds))
        runs = run_seeds(unroll, many, "heldout", seeds, benchmark.horizon, benchmark.num_chains)
        ms = time_steps({name: (unroll, theta)}, benchmark.num_chains)[name]
        num_params = sum(leaf[0].numel() for leaf in tree.leaves(runs.params))
        facts = {
            "network": name,
            "parameters": num_params,
            "optimizer": label,
            "lr": lr,
            "ms/step": ms,
        }
        rows.append({**facts, **_figures(runs)})
    return rows


def _tuned(
    family: TaskFamily, spec: PermutationSpec, benchmark: Benchmark, compile: bool, device: str
) -> Any:
    """Optimizer, learning rate, inner loop and theta of the lowest final training loss."""
    found = []
    for label, constructor in benchmark.baselines.items():
        unroll = Unroll(family, constructor(spec), compile, device)
        tuned = tune_for(benchmark, unroll, constructor)
        lr = tuned.best("final_loss")
        theta = tree.to(theta_at(constructor, unroll.optimizer, lr), unroll.device)
        found.append((float(tuned.scores["final_loss"].min()), label, lr, unroll, theta))
    return min(found, key=lambda entry: entry[0])[1:]


def _figures(runs: Runs) -> dict[str, list[float]]:
    heldout = {name: values.tolist() for name, values in runs.heldout.items() if name in FIGURES}
    return {"final_loss": runs.final_loss.tolist(), **heldout}

"""A learned optimizer against tuned baselines on held-out seeds."""

from collections.abc import Callable
from typing import NamedTuple

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.benchmark import Benchmark, tune_for
from learned_opt.evaluation.seeded_runs import run_seeds, time_steps
from learned_opt.evaluation.tuning import theta_at
from learned_opt.inner.unroll import Unroll
from learned_opt.reporting.tables import Entry


class Comparison(NamedTuple):
    """What a comparison on one task came to.

    Args:
        entries: by name, the learned optimizer first.
        warnings: sentences that a reader of the numbers must know.
    """

    entries: dict[str, Entry]
    warnings: list[str]


def compare(
    unroll: Unroll,
    name: str,
    benchmark: Benchmark,
    compile: bool,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Tune the baselines, run everything on the held-out seeds, time the steps.

    A baseline is tuned twice from the same runs: for the mean loss, and, where another learning rate is best for it,
    for the final loss (entry ``NAME-final``).

    Args:
        unroll: the inner loop of the learned optimizer.
        name: its name in the tables.
        benchmark: settings.
        compile: compile the baselines' inner steps too.
        say: called with a line on what is being done.
    """
    chains, theta = (
        benchmark.num_chains,
        {k: p.detach() for k, p in unroll.optimizer.named_parameters()},
    )
    contenders: dict[str, tuple[Unroll, Tree, float | None]] = {name: (unroll, theta, None)}
    warnings = []
    for baseline, constructor in benchmark.baselines.items():
        say(
            f"tuning {baseline}: {benchmark.num_lrs} learning rates x {benchmark.num_tuning_seeds} seeds"
        )
        own = Unroll(unroll.family, constructor(unroll.optimizer.spec), compile, unroll.device)
        tuned = tune_for(benchmark, own, constructor)
        if tuned.num_reused:
            say(f"{tuned.num_reused} of these runs lie in {benchmark.archive}")
        for criterion, label in (("mean_loss", baseline), ("final_loss", f"{baseline}-final")):
            lr = tuned.best(criterion)
            if label == baseline or lr != tuned.best("mean_loss"):
                at_lr = tree.to(theta_at(constructor, own.optimizer, lr), own.device)
                contenders[label] = (own, at_lr, lr)
            if label in contenders and tuned.at_edge(criterion):
                warnings.append(
                    f"the best learning rate of {label} is at the edge of the grid ({lr:.3g}): widen it"
                )
    say(f"running {', '.join(contenders)} on {benchmark.num_seeds} held-out seeds")
    times = time_steps({label: (own, at) for label, (own, at, _) in contenders.items()}, chains)
    entries = {}
    for label, (own, at, lr) in contenders.items():
        many = tree.expand(at, benchmark.num_seeds)
        runs = run_seeds(
            own, many, "heldout", range(benchmark.num_seeds), benchmark.horizon, chains
        )
        entries[label] = Entry(runs, times[label], lr)
    return Comparison(entries, warnings)

"""Six models that other people wrote: meta-train an optimizer on each, compare it with tuned Adam.

    python -m examples.other_peoples_models.run [MODEL ...] [--data FOLDER] [--seconds 60] [--eager]

Each model is a file of this folder: the user's code, with nothing in it about learned optimizers.
``--data`` is a folder with ``cifar10/`` and ``tiny_shakespeare/``; without it packages have data.
ResNet and GPT-2 need ``pip install transformers``.
"""

import argparse
import ast
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import learned_opt  # before torch: its threads then share the cores with other programs

# isort: split
import lightning
import torch
from typing_extensions import override

from learned_opt.api.meta_trained import MetaTrained
from learned_opt.estimators.pes import PES
from learned_opt.inner.task_spec import TOLERANCE, symmetry_of
from learned_opt.optimizers.hand.references import make_adam
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry.check import check_function
from learned_opt.unf.layers import PointwiseUNFLinear
from tasks import ModuleTask

MODELS = ("resnet18", "lstm_text", "transformer_encoder", "gpt2", "unet", "gnn")
ALPHAS = {"resnet18": 0.1}  # step size at the start, 1 for the others; 1 is too large for this one
MOST_STEPS = 10_000  # outer steps, more than a minute has
MOST_AVERAGED = 5  # outer steps at either end, for the meta-losses that are shown


@dataclass(frozen=True)
class Budget:
    """How much is run.

    Args:
        seconds: of meta-training, from the first outer step on.
        steps: outer steps at most.
        num_tasks: antithetic pairs.
        unroll_length: inner steps of an outer step.
        horizon: inner steps of an inner training.
        seeds: held-out seeds of the comparison.
        num_lrs: learning rates that are tried of Adam, each with one seed.
        compile: compile the inner steps.
    """

    seconds: float = 60.0
    steps: int = MOST_STEPS
    num_tasks: int = 4
    unroll_length: int = 10
    horizon: int = 50
    seeds: int = 8
    num_lrs: int = 9
    compile: bool = True


class Clock(lightning.Callback):
    """Stops the training so many seconds behind its first outer step.

    Args:
        seconds: as it says.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()
        self.busy_at_start = processor_time()
        self.first_step = 0.0  # seconds until it was done
        self.busy = 0.0  # seconds of processors until then, less where others share them

    @override
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object
    ) -> None:
        passed = time.perf_counter() - self.start
        if not self.first_step:
            self.first_step = passed
            self.busy = processor_time() - self.busy_at_start
        if passed > self.first_step + self.seconds:
            trainer.should_stop = True


def processor_time() -> float:
    """Seconds of processors that this process and its ended children have had."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def make_task(name: str, root: str | None) -> ModuleTask:
    """The task of a model.

    Args:
        name: of its file.
        root: folder of real data; None for packaged data.
    """
    return import_module(f"examples.other_peoples_models.{name}").make_task(root)


def num_lines(name: str) -> int:
    """Lines of a model's file without blank ones, comments and docstrings."""
    path = Path(__file__).with_name(f"{name}.py")
    text = path.read_text()
    hidden: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            hidden |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))

    count = 0
    for number, line in enumerate(text.splitlines(), start=1):
        is_code = line.strip() and not line.strip().startswith("#")
        count += bool(is_code and number not in hidden)
    return count


def show_symmetry(task: ModuleTask) -> bool:
    """Print the inferred permutation spec and whether it is maximal; returns whether it is proved.

    Args:
        task: of the model.
    """
    params, spec = symmetry_of(task)
    source = torch.Generator().manual_seed(1)
    batch = task.without_noise(task.batch(source, {}))
    with torch.no_grad():
        report = check_function(
            lambda values: [task.loss(values, batch, {})],
            params,
            spec,
            source,
            tolerance=TOLERANCE,
        )

    size = sum(parameter.numel() for parameter in params.values())
    free = [name for name in spec.names if name not in spec.fixed]
    print(f"parameters: {size:,} in {len(params)} tensors")
    print(f"permutation names: {len(spec.names)}, of which fixed {len(spec.fixed)}")
    print(f"free: {', '.join(free)}")
    print(f"proved: {report.passed}, maximal: {report.maximal}")
    for finding in report.findings:
        print(f"  {finding}")
    return report.passed


def meta_train(task: ModuleTask, budget: Budget, alpha: float = 1.0) -> MetaTrained:
    """Meta-train, and print how long it took.

    Args:
        task: of the model.
        budget: how much.
        alpha: step size of the optimizer at the start.
    """
    head = partial(PointwiseUNFLinear, init="zero")
    unf = partial(
        UNFOptimizer, head=head, channels=16, alpha=alpha, beta=0.03, normalisation="channel"
    )
    pes = partial(PES, num_tasks=budget.num_tasks, unroll_length=budget.unroll_length, sigma=0.03)
    clock = Clock(budget.seconds)

    result = learned_opt.meta_train(
        task,
        unf,
        pes,
        budget.steps,
        horizon=budget.horizon,
        outer_optimizer=partial(torch.optim.Adam, lr=0.01),
        validate_every=None,
        callbacks=[clock],
        compile=budget.compile,
        progress=False,
    )
    losses = result.history["meta_loss/train"]
    words = "compiled" if budget.compile else "eager"
    print(
        f"first outer step after {clock.first_step:.1f} s, {words} "
        f"({clock.busy:.1f} s of a processor)"
    )
    print(f"outer steps: {len(losses)} of {budget.unroll_length} inner steps each")
    few = max(1, min(MOST_AVERAGED, len(losses) // 2))
    print(f"meta-loss: {losses[:few].mean():.4f} at first, {losses[-few:].mean():.4f} at last")
    return result


def study(name: str, root: str | None, budget: Budget) -> None:
    """All of one model.

    Args:
        name: of its file.
        root: folder of real data; None for packaged data.
        budget: how much.
    """
    print(f"# {name}: {num_lines(name)} lines of the user's")
    task = make_task(name, root)
    print(f"data: {task.describe()['data']}")
    show_symmetry(task)

    result = meta_train(task, budget, ALPHAS.get(name, 1.0))
    comparison = learned_opt.compare(
        {"learned": result},
        task,
        budget.horizon,
        baselines={"adam": make_adam},
        seeds=budget.seeds,
        lowest_lr=1e-4,
        highest_lr=1.0,
        num_lrs=budget.num_lrs,
        num_tuning_seeds=1,
        compile=budget.compile,
        progress=False,
    )
    print(comparison, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Study the models that a command line names."""
    parser = argparse.ArgumentParser(description="Models of other people")
    parser.add_argument("models", nargs="*", choices=MODELS, metavar="MODEL", help="all by default")
    parser.add_argument("--data", help="folder of real data sets")
    parser.add_argument("--seconds", type=float, default=60.0, help="of meta-training")
    parser.add_argument("--seeds", type=int, default=8, help="held-out seeds of the comparison")
    parser.add_argument("--eager", action="store_true", help="do not compile")

    arguments = parser.parse_args(words)
    budget = Budget(arguments.seconds, seeds=arguments.seeds, compile=not arguments.eager)
    for name in arguments.models or MODELS:
        study(name, arguments.data, budget)


if __name__ == "__main__":
    main()

"""What an evaluation compares: optimizers (contenders) on tasks at horizons (settings)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily


@dataclass(frozen=True)
class Contender:
    """An optimizer to compare.

    Args:
        name: its name in tables.
        constructor: ``(spec)``, ready to use; ``(spec, lr=...)`` for one that is tuned.
        identity: what it was made of, theta included; two with equal identities give equal runs.
        trained: ``theta.json`` of a learned optimizer; None for a baseline.
        fixed: a baseline that keeps the learning rate that it was made with, as whoever does not
            tune has it.
        unrolls: task -> inner loop that is there already, compiled; the others are built.
        one_of: name of the optimizer that this is one meta-training of, where there are several;
            empty elsewhere.
        meta_seed: root of the random numbers of that meta-training.
    """

    name: str
    constructor: Callable[..., MetaOptimizer]
    identity: Mapping[str, Any]
    trained: Mapping[str, Any] | None = None
    fixed: bool = False
    unrolls: Mapping[str, Unroll] = field(default_factory=lambda: MappingProxyType({}))
    one_of: str = ""
    meta_seed: int = 0

    @property
    def tuned(self) -> bool:
        """Whether its learning rate is tuned on the task."""
        return self.trained is None and not self.fixed

    @property
    def trained_here(self) -> bool:
        """Whether the run that evaluates it is the one that has meta-trained it."""
        return bool(self.unrolls)


def meta_trainings(thetas: Sequence[Contender]) -> list[Contender]:
    """Thetas of one name as meta-trainings of one optimizer, told apart by their seeds.

    Args:
        thetas: contenders of one name, at least two.

    Raises:
        ValueError: they are of different optimizers, or their seeds are equal or not known.
    """
    name = thetas[0].name
    advice = "name them: theta={NAME: FILE, NAME: FILE}"
    named = []
    for contender in thetas:
        trained = contender.trained or {}
        seed = str(trained.get("provenance", {}).get("seed", ""))
        if contender.identity["config"] != thetas[0].identity["config"]:
            raise ValueError(
                f"two thetas are called {name}, but their optimizers have other settings; {advice}."
            )
        if not seed.isdigit() or seed in [str(other.meta_seed) for other in named]:
            raise ValueError(
                f"two thetas are called {name}, and no two seeds of meta-training (provenance of "
                f"theta.json) tell them apart; {advice}."
            )
        label = f"{name} seed {seed}"
        named.append(replace(contender, name=label, one_of=name, meta_seed=int(seed)))
    return named


@dataclass(frozen=True)
class Setting:
    """A task, how long it is trained, and how.

    Args:
        task: its name in tables.
        family: the inner problems.
        spec: permutation spec of its weights.
        benchmark: horizon, seeds and tuning budget.
        baselines: the tuned optimizers; schedules may depend on the horizon.
        config: what the task was made of, without what its description says; tells equal tasks
            from others. None where that is not known.
        compile: compile the inner steps.
        device: where to train.
        precision: of ``Unroll``.
        axis: axis of the generalisation card that it is a point of; empty for a task itself.
        point: which point.
    """

    task: str
    family: TaskFamily
    spec: PermutationSpec
    benchmark: Benchmark
    baselines: Sequence[Contender] = ()
    config: Mapping[str, Any] | None = field(default_factory=dict)
    compile: bool = True
    device: str = "cpu"
    precision: str = "float32"
    axis: str = ""
    point: str = ""

    @property
    def columns(self) -> dict[str, Any]:
        """What tells its rows from those of other settings."""
        return {
            "task": self.task,
            "horizon": self.benchmark.horizon,
            "axis": self.axis,
            "point": self.point,
        }

    @property
    def criteria(self) -> Sequence[str]:
        """What its baselines are tuned for; a point of a card is judged by the final loss alone."""
        return ("final_loss",) if self.axis else self.benchmark.tuned_for

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the optimizer that numbers depend on, without the horizon."""
        return {
            "task": {"config": self.config, "facts": self.family.describe()},
            "num_chains": self.benchmark.num_chains,
            "compile": self.compile,
            "device": self.device,
            "precision": self.precision,
        }

    def unroll(self, contender: Contender) -> Unroll:
        """The inner loop of an optimizer on the task.

        Raises:
            ValueError: the optimizer does not fit the weights of the task.
        """
        if self.task in contender.unrolls:
            return contender.unrolls[self.task]
        optimizer = contender.constructor(self.spec).to(self.device)
        optimizer = optimizer.with_num_steps(self.benchmark.horizon)
        return Unroll(self.family, optimizer, self.compile, self.device, self.precision)

    def __str__(self) -> str:
        words = (self.task, self.axis, self.point, f"horizon {self.benchmark.horizon}")
        return " ".join(filter(None, words))

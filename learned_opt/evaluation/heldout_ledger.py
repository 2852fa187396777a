"""The ledger of held-out seeds: who has been evaluated on which, and when.

Held-out seeds measure something new once. Whoever looks at their figures, changes an optimizer and
evaluates it on the same seeds again has chosen by them. The ledger is a folder with a small file
for each use, so that runs side by side never write into the same file and Git merges them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from learned_opt.core.files import write_json


class Use(NamedTuple):
    """One optimizer that was evaluated on held-out seeds of a task.

    Args:
        family: class of the optimizer: what stays where another theta is tried.
        optimizer: its name in tables.
        theta: digest of its parameters.
        task: the name of the task.
        first_seed: the first of the seeds.
        num_seeds: how many, one after another.
        date: when they were used first, ISO 8601, UTC.
        command: that asked for it.
        git: commit of the code.
    """

    family: str
    optimizer: str
    theta: str
    task: str
    first_seed: int
    num_seeds: int
    date: str
    command: str
    git: str

    @property
    def file(self) -> str:
        """Name of its file; the same optimizer on the same seeds is one use, however often."""
        keys = [self.family, self.theta, self.task, self.first_seed, self.num_seeds]
        digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:12]
        return f"{self.task}-{self.optimizer}-{digest}.json".replace("/", "_").replace(" ", "-")

    def shares_seeds(self, other: "Use") -> bool:
        """Whether a seed of one is a seed of the other, on the same task."""
        if self.task != other.task:
            return False
        starts_before_end = self.first_seed < other.first_seed + other.num_seeds
        return starts_before_end and other.first_seed < self.first_seed + self.num_seeds


def use_of(
    optimizer: nn.Module, name: str, task: str, seeds: range, facts: Mapping[str, Any]
) -> Use:
    """The use of seeds that an evaluation makes now.

    Args:
        optimizer: with its theta.
        name: the optimizer's name in tables.
        task: the name of the task.
        seeds: the held-out seeds.
        facts: provenance of the run.
    """
    return Use(
        family=type(optimizer).__qualname__,
        optimizer=name,
        theta=theta_digest(optimizer),
        task=task,
        first_seed=seeds.start,
        num_seeds=len(seeds),
        date=datetime.now(UTC).isoformat(timespec="milliseconds"),
        command=_without_folder(str(facts.get("command", "unknown"))),
        git=str(facts.get("git", "unknown")),
    )


def _without_folder(command: str) -> str:
    """A command without the folder that it wrote to: the ledger is published, that path is not."""
    words = []
    for word in command.split(" "):
        if not word.startswith(("hydra.run.dir=", "hydra.sweep.dir=")):
            words.append(word)
    return " ".join(words)


def theta_digest(optimizer: nn.Module) -> str:
    """Sixteen hex digits that tell the parameters of one optimizer from those of another."""
    digest = hashlib.sha256()
    for name, parameter in optimizer.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def record(folder: Path, uses: Sequence[Use]) -> list[str]:
    """Write uses into the ledger, and warn of those that are not the first of their kind.

    What is compared in one run is one look: these uses do not count against each other. Nor does an
    optimizer against itself, since the same figures tell nothing new.

    Args:
        folder: the ledger.
        uses: of one run on one task.

    Returns:
        list[str]: a sentence for each use before which another theta of the same family was
        evaluated on some of the seeds of the same task.

    Raises:
        ValueError: a file of the ledger is damaged.
    """
    entries = read(folder)
    of_this_run = {use.theta for use in uses}

    warnings = []
    for use in uses:
        known = next((entry for entry in entries if entry.file == use.file), None)
        if known is None:
            write_json(folder / use.file, use._asdict())

        # the date of the first time: the warning stays where a run is repeated
        date = known.date if known else use.date
        earlier = []
        for entry in entries:
            same_kind = entry.family == use.family and entry.shares_seeds(use)
            if same_kind and entry.theta not in of_this_run and entry.date < date:
                earlier.append(entry)

        if earlier:
            warnings.append(_warning(use, earlier))

    return warnings


def _warning(use: Use, earlier: Sequence[Use]) -> str:
    last = max(earlier, key=lambda entry: entry.date)
    seeds = f"{use.first_seed} to {use.first_seed + use.num_seeds - 1}"
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    return (
        f"held-out seeds {seeds} of {use.task} had been used {times} before for another "
        f"{use.family} ({last.optimizer}, {last.date[:10]}): the figures of {use.optimizer} are "
        "held out only if nothing was chosen by those (benchmark.first_seed takes another range)"
    )


def read(folder: Path) -> list[Use]:
    """All uses that a ledger holds, the earliest first.

    Raises:
        ValueError: a file is damaged or holds no use.
    """
    uses = []
    for path in sorted(folder.glob("*.json")):
        try:
            use = Use(**json.loads(path.read_text("utf-8")))
            _check_types(use)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or no use of held-out seeds; restore it: {error}."
            ) from error
        uses.append(use)

    return sorted(uses, key=lambda use: use.date)


def _check_types(use: Use) -> None:
    for name, value in use._asdict().items():
        kind = int if name in ("first_seed", "num_seeds") else str
        if type(value) is not kind:
            raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")

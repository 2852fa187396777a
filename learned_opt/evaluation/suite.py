"""The evaluation suite: optimizers x tasks x horizons x held-out seeds; a cell that was run once is not run again."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from learned_opt.core import tree
from learned_opt.evaluation import cells, guards, scores
from learned_opt.evaluation.cells import Cell, Contender, Setting
from learned_opt.evaluation.seeded_runs import HELDOUT, time_steps
from learned_opt.inner.unroll import Unroll
from learned_opt.reporting.tables import write_json


@dataclass
class Results:
    """What a suite came to so far; filled setting by setting.

    Args:
        frames: a tidy table of every setting, see ``scores.rows``.
        curves: (task, horizon) -> optimizer -> runs, of the tasks themselves, for pictures.
        left_out: cells that could not be, with the reason.
        budgets: a row for every cell: what was tuned, how long it took.
        origins: a row for every learned optimizer and task: whether meta-training has seen it.
        warnings: sentences that a reader of the numbers must know.
        described: task -> its description.
        reused: number of cells that were there already.
    """

    frames: list[pd.DataFrame] = field(default_factory=list)
    curves: dict[tuple[str, int], dict[str, Cell]] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    budgets: list[dict[str, Any]] = field(default_factory=list)
    origins: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    reused: int = 0

    @property
    def frame(self) -> pd.DataFrame:
        """One row per task, horizon, point of the card, optimizer and seed."""
        return pd.concat(self.frames, ignore_index=True)

    def warn(self, sentence: str) -> None:
        """Keep a sentence, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


def run_suite(
    settings: Iterable[Setting],
    learned: Sequence[Contender],
    folder: Path,
    reference: str,
    criterion: str,
    provenance: Mapping[str, str],
    say: Callable[[str], None] = lambda text: None,
) -> Results:
    """Run, or read, every cell.

    Args:
        settings: tasks at horizons and points of the card, with their baselines; built one after another.
        learned: the learned optimizers; one that does not fit a task is left out there, with the reason.
        folder: of the cells. Cells are found by what their numbers depend on, so that a killed evaluation goes on.
        reference: the tuned baseline that speed-ups are counted against.
        criterion: what baselines are tuned for, ``final_loss`` or ``mean_loss``.
        provenance: written into new cells.
        say: called with a line on what is being done.

    Raises:
        ValueError: the reference is no tuned baseline, a name occurs twice, the criterion is unknown, or no learned
            optimizer fits a task.
    """
    results = Results()
    for setting in settings:
        contenders = [*learned, *setting.baselines]
        _check(contenders, reference, criterion)
        wanted = [c for c in contenders if not setting.axis or not c.tuned or c.name == reference]
        unrolls = _bind(setting, wanted, results)
        found: dict[str, Cell] = {}
        for contender in (c for c in wanted if c.name in unrolls):
            path = cells.path_of(folder, setting, contender, criterion)
            if path.exists():
                results.reused += 1
            else:
                say(f"{setting}: {contender.name}")
                table, facts = cells.run_cell(
                    setting, contender, unrolls[contender.name], criterion
                )
                who = cells.identity(setting, contender, criterion)
                cells.write(path, table, {**facts, "identity": who, "provenance": dict(provenance)})
            found[contender.name] = cells.read(path)
        guards.check_paired({name: cell.table["start"].tolist() for name, cell in found.items()})
        times = (
            {}
            if setting.axis
            else _times(setting, contenders, unrolls, folder, provenance.get("machine", ""))
        )
        _collect(results, setting, found, reference, times, provenance)
        if not setting.axis:
            results.curves[setting.task, setting.benchmark.horizon] = found
            if setting.task not in results.described:
                _describe(results, setting, [c for c in learned if c.name in found])
    return results


def _check(contenders: Sequence[Contender], reference: str, criterion: str) -> None:
    names = [contender.name for contender in contenders]
    baselines = [contender.name for contender in contenders if contender.tuned]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"every optimizer needs a name of its own, got {', '.join(twice)} twice.")
    if reference not in baselines:
        raise ValueError(
            f"reference must be one of the baselines {', '.join(baselines)}, got {reference!r}."
        )
    if criterion not in cells.CRITERIA:
        raise ValueError(
            f"tuned_for must be one of {', '.join(cells.CRITERIA)}, got {criterion!r}."
        )


def _bind(setting: Setting, contenders: Sequence[Contender], results: Results) -> dict[str, Unroll]:
    """The inner loop of every optimizer that fits the task."""
    unrolls = {}
    for contender in contenders:
        try:
            optimizer = contender.constructor(setting.spec)
        except ValueError as error:
            results.left_out.append(
                {**setting.where, "optimizer": contender.name, "reason": str(error)}
            )
            continue
        unrolls[contender.name] = Unroll(
            setting.family,
            optimizer.to(setting.device),
            setting.compile,
            setting.device,
            setting.precision,
        )
    if not setting.axis and not any(c.name in unrolls for c in contenders if c.trained is not None):
        raise ValueError(
            f"no checkpoint fits task {setting.task}: {results.left_out[-1]['reason']}"
        )
    return unrolls


def _times(
    setting: Setting,
    contenders: Sequence[Contender],
    unrolls: Mapping[str, Unroll],
    folder: Path,
    machine: str,
) -> dict[str, float]:
    """Milliseconds per inner step, of all optimizers in turn; measured once for a task, whatever the horizon."""
    who = {
        contender.name: dict(contender.identity)
        for contender in contenders
        if contender.name in unrolls
    }
    path = (
        folder
        / f"{setting.task} times {cells.digest([setting.identity, who, machine])}.json".replace(
            " ", "-"
        )
    )
    if not path.exists():
        thetas = {
            name: (
                unroll,
                tree.to(
                    {k: p.detach() for k, p in unroll.optimizer.named_parameters()}, unroll.device
                ),
            )
            for name, unroll in unrolls.items()
        }
        times = time_steps(thetas, setting.benchmark.num_chains)
        beside = path.with_suffix(".part")
        write_json(beside, times)
        beside.replace(path)
    return json.loads(path.read_text())


def _collect(
    results: Results,
    setting: Setting,
    found: dict[str, Cell],
    reference: str,
    times: Mapping[str, float],
    provenance: Mapping[str, str],
) -> None:
    results.frames.append(scores.rows(setting.where, found, reference, times))
    rival = found[reference].table["diverged"].tolist()
    if any(rival):
        seeds = f"{reference} diverged on {sum(rival)} of {len(rival)} seeds of {setting}"
        results.warn(f"{seeds}: these have no target and count in no speed-up")
    for name, cell in found.items():
        tuning = cell.facts["tuning"] or {}
        seconds = {key: cell.facts[key] for key in ("tuning_seconds", "run_seconds")}
        results.budgets.append({**setting.where, "optimizer": name, **tuning, **seconds})
        if tuning.get("at_edge"):
            rate = f"the best learning rate of {name} on {setting} is at the edge of the grid"
            results.warn(f"{rate} ({tuning['learning_rate']:.3g}): widen it")
        made_by = cell.facts["provenance"].get("git")
        if made_by != provenance.get("git"):
            results.warn(
                f"some cells are of another revision ({made_by}) than this run's ({provenance.get('git')})"
            )


def _describe(results: Results, setting: Setting, learned: Sequence[Contender]) -> None:
    """What is new to the optimizers on a task, and what is not."""
    facts = results.described[setting.task] = setting.family.describe()
    shared = guards.shared_rows(setting.family)
    if shared and shared[0]:
        what = f"{shared[0]} of {shared[1]} held-out rows of {setting.task} also occur among its training rows"
        results.warn(f"{what}: its held-out figures are too good by that share")
    for contender in learned:
        trained = contender.trained or {}
        origin = guards.origin(contender.name, trained, setting.task, facts, setting.config)
        command = trained.get("provenance", {}).get("command", "unknown")
        results.origins.append(
            {
                "optimizer": contender.name,
                "task": setting.task,
                **origin._asdict(),
                "command": command,
            }
        )
        if origin.kind != guards.UNSEEN:
            results.warn(origin.sentence)
        results.warn(guards.seeds_sentence(contender.name, trained, HELDOUT))

"""THE evaluation path: optimizers x tasks x horizons x held-out seeds.

The comparison that ends a training is a suite of that training's tasks. A cell that has a file is
not run again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from learned_opt.core import tree
from learned_opt.core.files import write_json
from learned_opt.evaluation import cells, guards, heldout_ledger, scores
from learned_opt.evaluation.cells import Cell
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.results import MetaTraining, Results
from learned_opt.evaluation.seeded_runs import HELDOUT
from learned_opt.evaluation.setting import Contender, Setting
from learned_opt.evaluation.step_times import time_steps
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.machine import DECIDING, describe_machine


def run_suite(
    settings: Iterable[Setting],
    learned: Sequence[Contender],
    folder: Path | None,
    facts: Mapping[str, str],
    progress: Progress = SILENT,
) -> Results:
    """Run, or read, every cell.

    Args:
        settings: tasks at horizons and points of the card, with their baselines; built one after
            another.
        learned: the learned optimizers; one that does not fit a task is left out there, with the
            reason.
        folder: of the cells, which are found by what their numbers depend on, so that a killed
            evaluation goes on; None to keep none.
        facts: provenance of this run, written into new cells.
        progress: told of the runs as they go on.

    Raises:
        ValueError: a name occurs twice, no learned optimizer fits a task, or a cell is damaged.
    """
    results = Results(learned=[contender.name for contender in learned], facts=dict(facts))
    for contender in learned:
        if contender.one_of:
            results.meta_trainings[contender.name] = MetaTraining(
                contender.one_of, contender.meta_seed
            )

    for setting in settings:
        contenders = [*learned, *setting.baselines]
        _check_names(contenders)
        wanted = []
        for contender in contenders:
            if _belongs(contender, setting):
                wanted.append(contender)

        unrolls = _bind(setting, wanted, results)
        ledger = setting.benchmark.ledger
        if ledger:
            heldout_ledger.read(Path(ledger))  # a damaged one is refused before anything runs

        cells_by_row = _all_cells(setting, wanted, unrolls, folder, results, progress)

        starts = {name: cell.table["start"].tolist() for name, cell in cells_by_row.items()}
        guards.check_paired(starts)

        if ledger:
            _note_uses(setting, learned, unrolls, Path(ledger), results)

        times = _times(setting, contenders, unrolls, folder)
        _collect(results, setting, cells_by_row, times)

        if not setting.axis:
            losses = {name: cell.runs.losses.numpy() for name, cell in cells_by_row.items()}
            results.curves[setting.task, setting.benchmark.horizon] = losses

            if setting.task not in results.described:
                fitting = [contender for contender in learned if contender.name in unrolls]
                _describe(results, setting, fitting)

    return results


def _check_names(contenders: Sequence[Contender]) -> None:
    names = [contender.name for contender in contenders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"every optimizer needs a name of its own, got {', '.join(twice)} twice.")


def _belongs(contender: Contender, setting: Setting) -> bool:
    """Whether an optimizer is run on a setting; only the reference is tuned at a card's points."""
    if not setting.axis or not contender.tuned:
        return True
    return contender.name == setting.benchmark.reference


def _bind(setting: Setting, contenders: Sequence[Contender], results: Results) -> dict[str, Unroll]:
    """The inner loop of every optimizer that fits the task."""
    unrolls = {}
    for contender in contenders:
        try:
            unrolls[contender.name] = setting.unroll(contender)
        except ValueError as error:
            reason = {"optimizer": contender.name, "reason": str(error)}
            results.left_out.append({**setting.columns, **reason})

    # at the points of a card not to fit is a finding, on the task itself an error
    learned = [contender for contender in contenders if contender.trained is not None]
    if not setting.axis and not any(contender.name in unrolls for contender in learned):
        reason = results.left_out[-1]["reason"]
        raise ValueError(f"no theta fits task {setting.task}: {reason}")

    return unrolls


def _all_cells(
    setting: Setting,
    contenders: Sequence[Contender],
    unrolls: Mapping[str, Unroll],
    folder: Path | None,
    results: Results,
    progress: Progress,
) -> dict[str, Cell]:
    """Read or run the cells of the optimizers that fit the task."""
    fitting = [contender for contender in contenders if contender.name in unrolls]
    progress.begin(str(setting), _num_new_runs(setting, fitting, folder))

    made: dict[str, Cell] = {}
    for contender in fitting:
        unroll = unrolls[contender.name]
        made |= _cells_of(setting, contender, unroll, folder, results, progress)
    return made


def _num_new_runs(setting: Setting, contenders: Sequence[Contender], folder: Path | None) -> int:
    """Runs of the optimizers that have no cell yet."""
    count = 0
    for contender in contenders:
        if not folder or not cells.path_of(folder, setting, contender).exists():
            count += cells.num_runs(setting, contender)
    return count


def _cells_of(
    setting: Setting,
    contender: Contender,
    unroll: Unroll,
    folder: Path | None,
    results: Results,
    progress: Progress,
) -> dict[str, Cell]:
    """Read or run the cells of one optimizer."""
    results.num_cells += 1
    path = cells.path_of(folder, setting, contender) if folder else None
    if path and path.exists():
        results.reused += 1
        return cells.read(path, contender)

    progress.work_on(contender.name)
    made = cells.run_cells(setting, contender, unroll, progress)
    facts = {"identity": cells.identity(setting, contender), "provenance": results.facts}
    if path is None:
        return {name: cell._replace(facts={**cell.facts, **facts}) for name, cell in made.items()}

    # read back, so that a new cell is what a kept one would be
    cells.write(path, made, facts)
    return cells.read(path, contender)


def _note_uses(
    setting: Setting,
    learned: Sequence[Contender],
    unrolls: Mapping[str, Unroll],
    ledger: Path,
    results: Results,
) -> None:
    """Write into the ledger who has been evaluated on which held-out seeds, and warn."""
    seeds = setting.benchmark.heldout_seeds
    uses = []
    for contender in learned:
        if contender.name in unrolls:
            optimizer = unrolls[contender.name].optimizer
            use = heldout_ledger.use_of(
                optimizer, contender.name, setting.task, seeds, results.facts
            )
            uses.append(use)

    for sentence in heldout_ledger.record(ledger, uses):
        results.warn(sentence)


def _times(
    setting: Setting,
    contenders: Sequence[Contender],
    unrolls: Mapping[str, Unroll],
    folder: Path | None,
) -> dict[str, float]:
    """Milliseconds per inner step, of all optimizers in turn.

    Measured once for a task on a machine, whatever the horizon; not at all at the points of a card.
    """
    if setting.axis:
        return {}

    path = None
    if folder:
        identities = {c.name: dict(c.identity) for c in contenders if c.name in unrolls}
        machine = describe_machine(torch.device(setting.device))
        deciding = {fact: machine[fact] for fact in DECIDING}
        key = cells.digest([setting.identity, identities, deciding])
        path = folder / f"{setting.task} times {key}.json".replace(" ", "-").replace("/", "_")
        if path.exists():
            return json.loads(path.read_text("utf-8"))

    thetas = {}
    for name, unroll in unrolls.items():
        theta = {key: p.detach() for key, p in unroll.optimizer.named_parameters()}
        thetas[name] = (unroll, tree.to(theta, unroll.device))

    times = time_steps(thetas, setting.benchmark.num_chains)
    if path:
        write_json(path, times)

    return times


def _collect(
    results: Results, setting: Setting, cells_by_row: Mapping[str, Cell], times: Mapping[str, float]
) -> None:
    """Add the rows of a setting and what a reader must know of them."""
    reference = scores.reference_row(list(cells_by_row), setting.benchmark.reference)
    if reference:
        results.reference = setting.benchmark.reference
        diverged = cells_by_row[reference].table["diverged"].tolist()
        if any(diverged):
            seeds = f"{sum(diverged)} of {len(diverged)} seeds of {setting}"
            results.warn(
                f"{reference} diverged on {seeds}: these have no target and count in no speed-up"
            )
    target = setting.benchmark.target_loss
    results.frames.append(scores.rows(setting.columns, cells_by_row, reference, times, target))

    for name, cell in cells_by_row.items():
        tuning = cell.tuning or {}
        seconds = {key: cell.facts[key] for key in ("tuning_seconds", "run_seconds")}
        results.budgets.append({**setting.columns, "optimizer": name, **tuning, **seconds})

        if tuning.get("at_edge"):
            results.warn(
                f"the best learning rate of {name} on {setting} is at the edge of the grid "
                f"({tuning['learning_rate']:.3g}): widen it"
            )

        revision = cell.facts["provenance"].get("git")
        if revision != results.facts.get("git"):
            results.warn(
                f"some cells are of another revision ({revision}) than this run's "
                f"({results.facts.get('git')})"
            )


def _describe(results: Results, setting: Setting, learned: Sequence[Contender]) -> None:
    """Note what is new to the optimizers on a task, and what is not."""
    description = setting.family.describe()
    results.described[setting.task] = description

    shared = guards.shared_rows(setting.family)
    if shared and shared[0]:
        results.warn(
            f"{shared[0]} of {shared[1]} held-out rows of {setting.task} also occur among its "
            "training rows: its held-out figures are too good by that share"
        )

    for contender in learned:
        trained = contender.trained or {}
        origin = guards.origin(contender.name, trained, setting.task, description, setting.config)
        command = trained.get("provenance", {}).get("command", "unknown")
        names = {"optimizer": contender.name, "task": setting.task}
        results.origins.append({**names, **origin._asdict(), "command": command})

        if origin.kind != guards.UNSEEN and not contender.trained_here:
            results.warn(origin.sentence)
        results.warn(guards.seeds_sentence(contender.name, trained, HELDOUT))

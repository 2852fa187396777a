"""Meta-train, then evaluate on held-out seeds and report, ``+task=mlp``."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.core import errors
from learned_opt.runtime import code_state, job_record, run_identity
from learned_opt.runtime.run_folder import RunFolder


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="config")
@cli.one_line_errors
def run(cfg: DictConfig) -> float | None:
    """One run, which goes on from the checkpoints that its folder may hold.

    Returns:
        float | None: the last validation loss, which a sweeper may minimise, as held-out seeds are
        not for tuning; None on ranks other than the leader, and without validation.
    """
    from learned_opt.compose import hydra_job, resolve

    folder = hydra_job.folder()
    value = job_record.finished_value(folder)
    if value is not None:
        return value
    # a job that has finished before does not wait for torch
    from rich.console import Console

    from learned_opt.compose import config_tree
    from learned_opt.runtime import ranks

    composed = resolve.plain_values(cfg)
    cfg = resolve.final(cfg)
    world = ranks.world(cfg.trainer.devices, cfg.trainer.num_nodes, cfg.device)
    ranks.use_own_gpu(world)
    console = Console(quiet=not world.is_leader)
    if world.is_leader:
        run_identity.refuse_another(folder, composed)
    config_tree.print_if_asked(cfg, console)
    return _meta_train(cfg, world, folder, console, composed)


def _meta_train(
    cfg: DictConfig, world: Any, folder: Path, console: Any, composed: dict[str, Any]
) -> float | None:
    """Meta-train in all ranks; then the leader evaluates and reports.

    Args:
        cfg: the final config.
        world: the ranks, and which of them this is.
        folder: of the run.
        console: where to print.
        composed: the config as Hydra has composed it, by which the folder knows its run.
    """
    from learned_opt.compose import (
        hydra_job,
        inner_problems,
        loggers,
        meta_training,
        resolve,
        sizing,
        ways_on,
    )
    from learned_opt.compose.run_facts import facts_of_run
    from learned_opt.reporting import screens
    from learned_opt.runtime import interrupts, ranks
    from learned_opt.training import validation_loss

    cfg, problems, origin = _problems(cfg)
    start = meta_training.find_start(folder, cfg.checkpoint)
    memory = sizing.size(cfg, problems, world, start.num_tasks)
    cfg, problems = sizing.settled(cfg, problems, memory)
    if world.is_leader:
        # with the number that ``auto`` stands for, as whoever goes on needs it
        resolve.save(cfg, folder)

    print_line = screens.plain_line(console)
    words = sizing.resolved(hydra_job.overrides(), memory.automatic)
    # W&B's run is ended after the comparison, when the other ranks are gone
    with ExitStack() as stack:
        way_on = partial(ways_on.of_training, words, folder)
        with interrupts.way_on(way_on), ranks.others(world, follow, cfg, hydra_job.settings()):
            training = meta_training.build_training(cfg, problems, folder, start)
            if world.is_leader:
                run_identity.keep(folder, composed)
            stack.enter_context(loggers.completed(training.trainer.loggers, folder, print_line))
            estimator = str(hydra_job.choice("estimator"))
            facts = facts_of_run(problems, estimator, training.estimators, str(memory), folder)
            console.print(screens.facts_grid(facts))
            if start.checkpoint or origin:
                print_line(f"going on from {start.checkpoint or cfg.theta}")
            stopped_by = _run(training, world)

        if not world.is_leader:
            return None

        metadata = _save(cfg, problems, training, origin, folder)
        all_words = [*words, *hydra_job.config_words(), *ways_on.trust_words(cfg, metadata)]
        if stopped_by:
            raise errors.Interrupted(stopped_by, screens.interrupted(all_words, folder))
        way_on = partial(ways_on.of_comparison, words, folder, cfg.benchmark.archive)
        with interrupts.way_on(way_on):
            _end(training, problems, metadata, RunFolder(folder), console, all_words)

    labels = inner_problems.labels(problems)
    return validation_loss.last(RunFolder(folder).metrics, labels)


def _problems(cfg: DictConfig) -> tuple[DictConfig, dict[str, Any], dict[str, Any] | None]:
    """The tasks of a run.

    Returns:
        tuple: the config, with the meta-optimizer of ``theta`` where there is one; the problems;
        and what ``theta.json`` keeps of that theta.
    """
    from learned_opt.compose import hydra_job, inner_problems, trained_optimizer, trained_theta

    theta = trained_theta.single(cfg)
    if theta is None:
        name = str(hydra_job.choice("meta_optimizer"))
        return cfg, inner_problems.build_problems(cfg, cfg.meta_optimizer, name), None

    _refuse_another_optimizer(hydra_job.overrides())
    trained = trained_optimizer.build_trained(cfg, theta)
    origin = trained_optimizer.ancestry(theta, trained.metadata)
    return trained.cfg, trained.problems, origin


def _run(training: Any, world: Any) -> int | None:
    """Meta-train; returns the signal that stopped it, if one did."""
    try:
        return training.run()
    except errors.RunError:
        if world.is_leader:
            raise
        sys.exit(1)  # the leader says why


def _save(
    cfg: DictConfig,
    problems: dict[str, Any],
    training: Any,
    origin: dict[str, Any] | None,
    folder: Path,
) -> dict[str, Any]:
    """Write theta and its description, which is returned."""
    from learned_opt.compose import averaged_theta, theta_description
    from learned_opt.deploy.weights import save_theta

    metadata = theta_description.metadata(cfg, problems)
    metadata["provenance"] |= training.spent() | code_state.earlier_code(folder)
    if origin:
        metadata["started_from"] = origin
    save_theta(folder, training.module.theta, metadata)
    if training.average:
        averaged_theta.save(folder, training.average, metadata)
    return metadata


def _end(
    training: Any,
    problems: dict[str, Any],
    metadata: dict[str, Any],
    folder: RunFolder,
    console: Any,
    words: Sequence[str],
) -> None:
    """The comparison, or why there is none and how to make it."""
    from learned_opt.compose import ways_on
    from learned_opt.reporting import screens

    if training.ran_out_of_time:
        # whoever limits the time does not wait for a comparison, which takes minutes
        text = ways_on.of_max_time(training.trainer, words, folder.path)
        screens.plain_line(console)(text)
    elif any(problem.benchmark.compares for problem in problems.values()):
        _compare_or_say_how(problems, metadata, folder, console, training.average)
    else:
        screens.show_report(folder, console)
        screens.plain_line(console)(screens.not_compared(words, folder.path))


def _compare_or_say_how(
    problems: dict[str, Any],
    metadata: dict[str, Any],
    folder: RunFolder,
    console: Any,
    average: Any = None,
) -> None:
    """``compare``; a disk that is full says that theta is kept, and how to go on.

    Raises:
        RunError: a file cannot be written or read.
    """
    try:
        compare(problems, metadata, folder, console, average)
    except BrokenPipeError:
        raise  # nobody reads what is printed: that is no matter of files
    except OSError as error:
        raise errors.RunError(
            f"theta is trained and kept in {folder.path}, but its comparison has not come to its "
            f"end: {error}. Mend that and start the same command again with "
            f"hydra.run.dir={folder.path}; it goes on there, and no step is trained twice."
        ) from error


def compare(
    problems: dict[str, Any],
    metadata: dict[str, Any],
    folder: RunFolder,
    console: Any,
    average: Any = None,
) -> None:
    """Compare the trained optimizer with tuned baselines on held-out seeds, and report.

    Args:
        problems: the tasks of the meta-training, from ``build_problems``.
        metadata: of ``theta.json``; written again, with what the comparison came to.
        folder: of the run.
        console: where to print.
        average: of theta, which is compared beside it; None where none was kept.
    """
    from learned_opt.compose import averaged_theta, contenders
    from learned_opt.deploy.optimizer import LearnedOptimizer
    from learned_opt.deploy.parity import verdict
    from learned_opt.deploy.weights import save_theta
    from learned_opt.evaluation.suite import run_suite
    from learned_opt.reporting import screens
    from learned_opt.reporting.run_progress import RunProgress

    optimizer = next(problem.optimizer for problem in problems.values())
    theta = dict(optimizer.named_parameters())
    learned = [contenders.trained_contender(problems, metadata)]
    if average:
        name = learned[0].name
        learned.append(averaged_theta.contender(problems, average, metadata, name))
    settings = contenders.training_settings(problems)
    print_line = screens.plain_line(console)
    with RunProgress() as progress:
        results = run_suite(settings, learned, None, metadata["provenance"], progress)

    described = {"evaluation": screens.evaluation_texts(results), "warnings": results.warnings}
    save_theta(folder.path, theta, {**metadata, **described})
    screens.show_results(results, folder, console)
    print_line(verdict(optimizer, LearnedOptimizer))


def _refuse_another_optimizer(overrides: Sequence[str]) -> None:
    for word in overrides:
        group = word.split("=")[0].split(".")[0]
        if group in ("meta_optimizer", "learned"):
            raise errors.UsageError(
                f"theta brings its own meta-optimizer, so that {word} has no effect; leave it out."
            )


def follow(cfg: DictConfig, settings: DictConfig) -> None:
    """The run in another rank, which the leader has started with its own config.

    Args:
        cfg: the config of the leader.
        settings: what Hydra knows of the leader's job.
    """
    from learned_opt.compose import hydra_job

    hydra_job.join(settings)
    run(cfg)


def main() -> None:
    """Entry point of the verb, which may be left out."""
    cli.entry_point(run)

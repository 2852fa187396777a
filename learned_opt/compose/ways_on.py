"""How to go on with a job that a signal has ended: what is kept, and the command."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose import hydra_job
from learned_opt.compose.command_line import command_to_go_on
from learned_opt.runtime.run_folder import RunFolder

# by what Hydra calls the config of a verb; the keys in braces are those of the config
KEPT = {
    "evaluate": "Cells that were done are kept in {cells} and are not made again.",
    "zoo": "Shards and trainings that were done are kept in {folder} and are not made again.",
    "lab": "Estimates are not kept: they are made again.",
    "bench": "Cases that were measured are written; they are measured again.",
    "bench_networks": "Cases that were measured are written; they are measured again.",
    "bench_deploy": "Cases that were measured are written; they are measured again.",
}
TUNED = ("evaluate", "contest")  # verbs that tune baselines


def of_job(cfg: DictConfig) -> str:
    """The way on with any verb, wherever it is.

    Args:
        cfg: the config that Hydra has composed.
    """
    if hydra_job.is_in_sweep():
        sweep = shlex.quote(str(hydra_job.sweep_folder()))
        return (
            "Jobs that have finished are kept; which have not, and the command that goes on:\n"
            f"  python -m learned_opt collect {sweep}"
        )

    name = hydra_job.config_name()
    sentences = []
    if name in KEPT:
        keys = {key: OmegaConf.select(cfg, key) for key in ("cells", "folder")}
        sentences.append(KEPT[name].format(**keys))
    if name in TUNED:
        sentences.append(_of_tuning(OmegaConf.select(cfg, "benchmark.archive")))
    if not sentences:
        sentences = ["What was written is whole."]

    command = command_to_go_on(hydra_job.overrides())
    return f"{' '.join(sentences)} To go on:\n  {command}"


def of_training(overrides: Sequence[str], folder: Path) -> str:
    """The way on with a meta-training that is ended at once.

    Args:
        overrides: words that change the config.
        folder: of the run.
    """
    steps = [0]
    for path in RunFolder(folder).checkpoints.glob("step_*.ckpt"):
        steps.append(int(path.stem.removeprefix("step_")))
    return (
        f"The last checkpoint is that of outer step {max(steps)}; what came behind it is made "
        f"again. To go on:\n  {command_to_go_on(overrides)}"
    )


def of_comparison(overrides: Sequence[str], folder: Path, archive: str | None) -> str:
    """The way on with the comparison that follows a meta-training.

    Args:
        overrides: words that change the config.
        folder: of the run.
        archive: folder of the tuning runs; None where none is kept.
    """
    kept = f"theta is trained and kept in {folder}; no outer step is made twice."
    return f"{kept} {_of_tuning(archive)} To go on:\n  {command_to_go_on(overrides)}"


def of_max_time(trainer: Any, words: Sequence[str], folder: Path) -> str:
    """What is told where ``trainer.max_time`` has ended a meta-training.

    Args:
        trainer: of the meta-training.
        words: of the command line.
        folder: of the run.
    """
    from learned_opt.reporting import screens  # with torch, for which no other way on waits

    # with it the next part would end at once, as it counts the time of all parts
    rest = [word for word in words if not word.lstrip("+").startswith("trainer.max_time=")]
    return (
        f"trainer.max_time ended the meta-training at outer step {trainer.global_step} of "
        f"{trainer.max_steps}, and its theta is not compared with baselines. "
        f"{screens.interrupted(rest, folder)}"
    )


def trust_words(cfg: DictConfig, metadata: dict[str, Any]) -> list[str]:
    """The word that a later command needs to read a theta of the user's classes, if any.

    Args:
        cfg: the config; where it says whom to trust, the words have it already.
        metadata: of ``theta.json``.
    """
    from learned_opt.deploy import construct  # with torch, for which no other way on waits

    packages = construct.foreign_packages(metadata["meta_optimizer"])
    return [f"trust=[{','.join(packages)}]"] if packages and cfg.trust is None else []


def _of_tuning(archive: str | None) -> str:
    if archive is None:
        return "Tuning runs are not kept, as benchmark.archive is null."
    return f"Tuning runs that were done are kept in {archive} and are not made again."

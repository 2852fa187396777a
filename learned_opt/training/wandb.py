"""The W&B logger of a run: where it writes, what it is called, and what goes into it meanwhile.

wandb is imported only when it is asked for.
"""

import logging
import netrc
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from learned_opt.core.files import write_text
from learned_opt.evaluation.behaviour import Row
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.run_id import find_folder, find_id, sweep_name

log = logging.getLogger(__name__)
RUN_ID = "WANDB_RUN_ID"
MODES = ("online", "offline", "shared", "disabled")
NUM_BINS = 64  # of a histogram of theta


def wandb_logger(
    save_dir: str,
    project: str,
    name: str,
    job_type: str,
    tags: Sequence[str],
    group: str | None,
    sweep_dir: str,
    checkpoint: str | None,
) -> WandbLogger:
    """A W&B logger, offline unless this machine is logged in or WANDB_MODE says otherwise.

    A run that starts again in its folder, or from a checkpoint of a run that W&B knows, goes on
    under the same id. WANDB_RUN_ID, which an agent of W&B sets, goes before all ids.

    Args:
        save_dir: run folder; W&B writes below it.
        project: W&B project.
        name: display name of the run.
        job_type: ``meta_train``, ``meta_test`` or ``baseline``.
        tags: labels.
        group: runs to be shown together; None for the name of the sweep, where the run is part
            of one.
        sweep_dir: the folder that a sweep would have.
        checkpoint: the one that the run resumes from, or the run folder that holds it.

    Raises:
        ValueError: WANDB_MODE is no mode of W&B, or WANDB_RUN_ID is set for several runs.
    """
    mode = _mode()
    folder = Path(save_dir).resolve()
    sweep = sweep_name(folder, sweep_dir)

    return WandbLogger(
        save_dir=save_dir,
        project=project,
        name=name,
        job_type=job_type,
        tags=list(tags),
        group=group or sweep,
        id=_run_id(folder, checkpoint, sweep is not None),
        resume="allow",
        mode=mode,
    )


def _mode() -> str:
    """What WANDB_MODE says, else online where this machine holds a key; asks no server."""
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in MODES:
        raise ValueError(f"WANDB_MODE must be one of {', '.join(MODES)}, got {mode!r}.")
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")  # the end of the run prints where to find it
    settings = wandb.setup().settings
    if mode:
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    return "online" if _has_login(settings.base_url) else "offline"


def _has_login(server: str) -> bool:
    """Whether the netrc file holds a key for a server."""
    host = urlparse(server).hostname or ""
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except FileNotFoundError:
        return False
    return known is not None


def _run_id(folder: Path, checkpoint: str | None, in_sweep: bool) -> str:
    """WANDB_RUN_ID, else the id under which the run goes on, else a new one.

    It is kept in the run folder, with the folders of the run's earlier parts.
    """
    run = RunFolder(folder)
    asked_for = os.environ.get(RUN_ID)
    if asked_for and in_sweep:
        raise ValueError(
            f"{RUN_ID} is the id of one run, but this is a job of a sweep of runs; unset it, "
            f"got {asked_for!r}."
        )

    known = find_id(folder, checkpoint, run.wandb_id.name)
    if asked_for and known and asked_for != known:
        log.warning(
            "%s=%s wins over %s, under which W&B has known this run; its earlier part stays there",
            RUN_ID,
            asked_for,
            known,
        )
        known = None

    if known:
        _keep_earlier_parts(run, checkpoint)
    run_id = asked_for or known or secrets.token_hex(4)
    _keep(run.wandb_id, run_id)
    return run_id


def _keep_earlier_parts(run: RunFolder, checkpoint: str | None) -> None:
    """Write down in which other folders the run has been before."""
    known = find_folder(run.path, checkpoint, run.wandb_id.name)
    if known is None or known == run.path:
        return

    before = RunFolder(known).wandb_earlier
    folders = before.read_text() if before.is_file() else ""
    _keep(run.wandb_earlier, f"{folders}{known}")


@rank_zero_only
def _keep(path: Path, text: str) -> None:
    write_text(path, text + "\n")


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """Those of the loggers that are W&B's."""
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def wandb_runs(loggers: Iterable[Logger]) -> list[Any]:
    """The W&B runs behind the loggers, started where they were not yet; empty without W&B."""
    return [logger.experiment for logger in wandb_loggers(loggers)]


def start_runs(loggers: Iterable[Logger]) -> None:
    """Start the W&B run where there is one, before anything is spent on the run.

    Raises:
        ConnectionError: there is no account, or no answer.
    """
    if not (ours := wandb_loggers(loggers)):
        return
    from wandb.errors import Error

    try:
        wandb_runs(ours)
    except Error as error:
        reason = str(error).strip().rstrip(".")
        raise ConnectionError(
            f"W&B does not start: {reason}; WANDB_MODE=offline needs no account."
        ) from error


def log_behaviour(
    loggers: Iterable[Logger],
    behaviour: Mapping[str, Sequence[Row]],
    theta: Mapping[str, Tensor],
    outer_step: int,
) -> None:
    """Log every quantity of every inner tensor, and histograms of theta; W&B only.

    A quantity is logged as its mean over inner time. Keys are ``QUANTITY/TENSOR``, with
    ``/TASK`` behind where there are several tasks, and ``theta/NAME``.

    Args:
        loggers: of the run; others than W&B's are left alone.
        behaviour: task -> rows of ``observe``.
        theta: meta-parameters by name.
        outer_step: how many have been done.
    """
    for logger in wandb_loggers(loggers):
        figures = _means_over_inner_time(behaviour) | _histograms(theta)
        logger.log_metrics(figures, step=outer_step)


def _means_over_inner_time(behaviour: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    series: dict[str, list[float]] = {}
    for task, rows in behaviour.items():
        suffix = f"/{task}" if len(behaviour) > 1 else ""
        for row in rows:
            series.setdefault(f"{row.quantity}/{row.tensor}{suffix}", []).append(row.value)
    return {key: sum(values) / len(values) for key, values in series.items()}


def _histograms(theta: Mapping[str, Tensor]) -> dict[str, Any]:
    import wandb

    histograms: dict[str, Any] = {}
    for name, tensor in theta.items():
        if tensor.isfinite().all():  # numpy refuses bins of infinite width
            bins = np.histogram(tensor.float().cpu().numpy(), bins=NUM_BINS)
            histograms[f"theta/{name}"] = wandb.Histogram(np_histogram=bins)
    return histograms

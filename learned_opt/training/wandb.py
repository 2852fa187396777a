"""The W&B logger of a run: where it writes, what it is called, and what goes into it while meta-training goes on.

wandb is imported only when it is asked for.
"""

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

from learned_opt.evaluation.behaviour import Row

ID_FILE = "wandb_id.txt"  # in the run folder
MODES = ("online", "offline", "shared", "disabled")


def wandb_logger(
    save_dir: str,
    project: str,
    name: str,
    job_type: str,
    tags: Sequence[str],
    group: str | None,
    sweep_dir: str,
    ckpt: str | None,
) -> WandbLogger:
    """A W&B logger, offline unless this machine is logged in or WANDB_MODE says otherwise.

    A run that starts again in its folder, or from a checkpoint of a run that W&B knows, goes on under the same id.

    Args:
        save_dir: run folder; W&B writes below it.
        project: W&B project.
        name: display name of the run.
        job_type: ``meta_train``, ``meta_test`` or ``baseline``.
        tags: labels.
        group: runs to be shown together; None for the name of the sweep, where the run is part of one.
        sweep_dir: the folder that a sweep would have.
        ckpt: the checkpoint that the run resumes from, or the run folder that holds it.

    Raises:
        ValueError: WANDB_MODE is no mode of W&B.
    """
    mode = _mode()
    folder, sweep = Path(save_dir).resolve(), Path(sweep_dir).resolve()
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        name=name,
        job_type=job_type,
        tags=list(tags),
        group=group or (sweep.name if sweep in folder.parents else None),
        id=_run_id(folder, Path(ckpt).resolve() if ckpt else None),
        resume="allow",
        mode=mode,
    )


def _mode() -> str:
    """What WANDB_MODE says, else online where this machine holds a key for the server; asks no server."""
    given = os.environ.get("WANDB_MODE")
    if given and given not in MODES:
        raise ValueError(f"WANDB_MODE must be one of {', '.join(MODES)}, got {given!r}.")
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")  # publish says what there is to say
    settings = wandb.setup().settings
    if given or os.environ.get("WANDB_API_KEY"):
        return given or "online"
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(
            urlparse(settings.base_url).hostname or ""
        )
    except FileNotFoundError:
        return "offline"
    return "online" if known else "offline"


def _run_id(folder: Path, ckpt: Path | None) -> str:
    """The id in the run folder, else that of the checkpoint's run, else a new one; it is kept in the run folder."""
    folders = [
        folder,
        *([ckpt, *ckpt.parents[:2]] if ckpt else []),
    ]  # a checkpoint lies in RUN/checkpoints
    known = (path / ID_FILE for path in folders)
    run_id = next(
        (path.read_text().strip() for path in known if path.is_file()), secrets.token_hex(4)
    )
    _keep(folder / ID_FILE, run_id)
    return run_id


@rank_zero_only
def _keep(path: Path, run_id: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run_id + "\n")


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """Those of the loggers that are W&B's."""
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def start_runs(loggers: Iterable[Logger]) -> None:
    """Start the W&B run where there is one, before anything is spent on the run.

    Raises:
        ConnectionError: there is no account, or no answer.
    """
    for logger in wandb_loggers(loggers):
        from wandb.errors import Error

        try:
            _ = logger.experiment
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
    """Log every quantity of every inner tensor as its mean over inner time, and histograms of theta; W&B only.

    Keys are ``QUANTITY/TENSOR``, with ``/TASK`` behind where there are several tasks, and ``theta/NAME``.

    Args:
        loggers: of the run; others than W&B's are left alone.
        behaviour: task -> rows of ``observe``.
        theta: meta-parameters by name.
        outer_step: how many have been done.
    """
    for logger in wandb_loggers(loggers):
        import wandb

        figures: dict[str, Any] = {}
        for task, rows in behaviour.items():
            suffix = f"/{task}" if len(behaviour) > 1 else ""
            series: dict[str, list[float]] = {}
            for row in rows:
                series.setdefault(f"{row.quantity}/{row.tensor}{suffix}", []).append(row.value)
            figures |= {key: sum(values) / len(values) for key, values in series.items()}
        for name, tensor in theta.items():
            if tensor.isfinite().all():
                bins = np.histogram(tensor.float().cpu().numpy(), bins=64)
                figures[f"theta/{name}"] = wandb.Histogram(np_histogram=bins)
        logger.log_metrics(figures, step=outer_step)

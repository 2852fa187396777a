"""What a finished run leaves in W&B: pictures, tables, held-out figures, and theta as a versioned artifact.

All of it is read from the files of the run folder.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from learned_opt.reporting.behaviour_plot import drawn
from learned_opt.training.wandb import wandb_loggers

MAX_ROWS = 10_000  # of a table that W&B shows
FIGURES = ["mean_loss", "final_loss", "accuracy"]
THETA_FILES = ("theta.safetensors", "theta.json", "evaluation.json")


@contextmanager
def published(
    loggers: Iterable[Logger], folder: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """At the end, an early one too, log what the run folder holds and end the W&B run; other loggers are left alone.

    Args:
        loggers: of the run.
        folder: run folder; files that are missing, as after Ctrl-C, are left out.
        say: is called with where the run is to be seen, or how to upload it.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in wandb_loggers(loggers):
            _publish(logger.experiment, folder, failed, say)


@rank_zero_only
def _publish(run: Any, folder: Path, failed: bool, say: Callable[[str], None]) -> None:
    with _staging_beside(folder):
        _log_files(run, folder)
        run.finish(exit_code=int(failed))
    if run.offline:
        say(f"upload to W&B with: wandb sync {Path(run.dir).parent}")
    else:
        say(f"W&B: {run.url}")


@contextmanager
def _staging_beside(folder: Path) -> Iterator[None]:
    """Artifacts wait for their upload in the run folder; wandb's default is the home folder of one machine."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str((folder / "wandb").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def _log_files(run: Any, folder: Path) -> None:
    import wandb

    evaluation = pd.json_normalize(_read_json(folder / "evaluation.json", []), sep="/")
    diagnostics = _read_csv(folder / "diagnostics.csv")
    tables = {
        "evaluation": evaluation,
        "curves": thinned(_read_csv(folder / "curves.csv"), "step"),
        "diagnostics": thinned(diagnostics, "outer_step"),
    }
    shown: dict[str, Any] = {
        n: wandb.Table(dataframe=table) for n, table in tables.items() if len(table)
    }
    shown |= {
        f"pictures/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))
    }
    if len(diagnostics):
        with drawn(diagnostics) as figure:
            shown["pictures/behaviour"] = wandb.Image(figure)
    if shown:
        run.log(shown)
    run.summary.update(heldout_means(evaluation))
    if run.job_type == "meta_test" or not (folder / "theta.safetensors").is_file():
        return
    described = _read_json(folder / "theta.json", {})
    described = {
        name: described[name] for name in ("provenance", "evaluation") if name in described
    }
    artifact = wandb.Artifact(f"theta-{run.name}", "meta-optimizer", metadata=described)
    for path in (folder / name for name in THETA_FILES):
        if path.is_file():
            artifact.add_file(str(path))
    if "evaluation" in shown:
        artifact.add(shown["evaluation"], "evaluation")
    run.log_artifact(artifact)


def heldout_means(evaluation: pd.DataFrame) -> dict[str, float]:
    """Means over the held-out seeds, left out where a seed diverged or the task has no such figure.

    Args:
        evaluation: rows of ``evaluation.json``.

    Returns:
        dict[str, float]: ``FIGURE/heldout/TASK`` of the learned optimizer, which comes first, and
        ``FIGURE/heldout/TASK/NAME`` of the others.
    """
    means: dict[str, float] = {}
    if evaluation.empty:
        return means
    for task, own in evaluation.groupby("task", sort=False):
        learned = own["optimizer"].iloc[0]
        for name, rows in own.groupby("optimizer", sort=False):
            figures = rows[FIGURES].apply(pd.to_numeric).mean(skipna=False).dropna()
            suffix = "" if name == learned else f"/{name}"
            means |= {
                f"{figure}/heldout/{task}{suffix}": float(value)
                for figure, value in figures.items()
            }
    return means


def thinned(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Every n-th value of a column counted from its largest, with the smallest n that leaves as many rows as W&B shows.

    Args:
        table: any number of rows.
        axis: the column.
    """
    values = [] if table.empty else sorted(table[axis].unique(), reverse=True)
    kept = table
    for n in range(2, len(values) + 1):
        if len(kept) <= MAX_ROWS:
            break
        kept = table.loc[table[axis].isin(values[::n])]
    return kept


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _read_json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text()) if path.is_file() else missing

"""What a finished run leaves in W&B, all of it read from the files of the run folder.

Pictures, tables, held-out figures, and theta as a versioned artifact.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch.utilities import rank_zero_only

from learned_opt.evaluation.frames import groups, select
from learned_opt.evaluation.results import Results, heldout_figures
from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.update_plots import updates_figure
from learned_opt.runtime.run_folder import RunFolder

MAX_ROWS = 10_000  # of a table that W&B shows
LOSSES = ("mean_loss", "final_loss")


@contextmanager
def published(runs: Iterable[Any], path: Path, print_line: Callable[[str], None]) -> Iterator[None]:
    """At the end, an early one too, log what the run folder holds and end the W&B runs.

    Args:
        runs: W&B's objects; none where the run does not log to W&B.
        path: run folder; files that are missing, as after Ctrl-C, are left out.
        print_line: called with where the run is to be seen, or how to upload it.
    """
    failed = True  # until the body has come to its end
    try:
        yield
        failed = False
    finally:
        for run in runs:
            _publish(run, RunFolder(path), failed, print_line)


@rank_zero_only
def _publish(run: Any, folder: RunFolder, failed: bool, print_line: Callable[[str], None]) -> None:
    with _staging_beside(folder):
        _log_files(run, folder)
        run.finish(exit_code=int(failed))
    if run.offline:
        parts = offline_parts(folder, run.id)
        last = Path(run.dir).resolve().parent
        if last not in parts:  # as WANDB_DIR may send it elsewhere
            parts.append(last)
        words = shlex.join(os.path.relpath(part) for part in parts)
        print_line(f"upload to W&B with: wandb sync {words}")
    else:
        print_line(f"W&B: {run.url}")


def offline_parts(folder: RunFolder, run_id: str) -> list[Path]:
    """What W&B keeps of a run for its upload, the oldest part first.

    A run that was continued has a part of each start, in other folders too.

    Args:
        folder: of the run.
        run_id: under which W&B knows it.
    """
    folders = [folder.path]
    if folder.wandb_earlier.is_file():
        folders = [*map(Path, folder.wandb_earlier.read_text().splitlines()), *folders]

    parts: list[Path] = []
    for path in folders:
        parts += sorted(RunFolder(path.resolve()).wandb.glob(f"offline-run-*-{run_id}"))
    return parts


@contextmanager
def _staging_beside(folder: RunFolder) -> Iterator[None]:
    """Artifacts wait for their upload in the run folder.

    W&B's default is the home folder of one machine.
    """
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder.wandb.resolve())

    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def _log_files(run: Any, folder: RunFolder) -> None:
    import wandb

    try:
        record = read_record(folder.path)
    except ValueError:  # the run was stopped before it had written anything
        record = Record(folder.path)

    logged: dict[str, Any] = {}
    for name, table in tables(record).items():
        if len(table):
            logged[name] = wandb.Table(dataframe=table)

    for picture in sorted(folder.path.glob("*.png")):
        logged[f"pictures/{picture.stem}"] = wandb.Image(str(picture))

    if len(record.diagnostics):
        logged["pictures/behaviour"] = wandb.Image(updates_figure(record.diagnostics))

    if logged:
        run.log(logged)

    if record.results:
        run.summary.update(heldout_means(record.results))

    # an evaluation did not make its theta
    if run.job_type != "meta_test" and folder.theta.is_file():
        _log_theta(run, folder, logged.get("evaluation"))


def _log_theta(run: Any, folder: RunFolder, evaluation: Any) -> None:
    import wandb

    metadata = json.loads(folder.theta_metadata.read_text("utf-8"))
    kept = {name: metadata[name] for name in ("provenance", "evaluation") if name in metadata}

    artifact = wandb.Artifact(f"theta-{run.name}", "meta-optimizer", metadata=kept)
    for file in (folder.theta, folder.theta_metadata, folder.evaluation):
        if file.is_file():
            artifact.add_file(str(file))

    if evaluation is not None:
        artifact.add(evaluation, "evaluation")

    run.log_artifact(artifact)


def tables(record: Record) -> dict[str, pd.DataFrame]:
    """What W&B shows as tables; long ones are thinned out."""
    diagnostics = thinned(record.diagnostics, "outer_step")
    if record.results is None:
        return {"diagnostics": diagnostics}

    rows = record.results.frame.drop(columns="start", errors="ignore")
    return {
        "evaluation": rows,
        "curves": thinned(_curves_table(record.results), "step"),
        "diagnostics": diagnostics,
    }


def _curves_table(results: Results) -> pd.DataFrame:
    """Columns task, seed, optimizer, step, loss, of the longest horizon of each task."""
    longest: dict[str, int] = {}
    for task, horizon in results.curves:
        longest[task] = max(horizon, longest.get(task, 0))

    parts = []
    for (task, horizon), losses_of in results.curves.items():
        if horizon == longest[task]:
            for optimizer, losses in losses_of.items():
                num_steps, num_seeds = losses.shape
                columns = {"seed": np.repeat(np.arange(num_seeds), num_steps)}
                columns["step"] = np.tile(np.arange(num_steps), num_seeds)
                columns["loss"] = losses.T.reshape(-1)
                parts.append(pd.DataFrame(columns).assign(task=task, optimizer=optimizer))

    names = ["task", "seed", "optimizer", "step", "loss"]
    return pd.concat(parts, ignore_index=True).reindex(columns=names) if parts else pd.DataFrame()


def heldout_means(results: Results) -> dict[str, float]:
    """Means over the held-out seeds.

    Left out where a seed diverged or the task has no such figure; of several horizons the last one
    counts.

    Args:
        results: of the evaluation.

    Returns:
        dict[str, float]: ``FIGURE/heldout/TASK`` of the learned optimizer, of the first where
        there are several, and ``FIGURE/heldout/TASK/NAME`` of the others.
    """
    learned = results.learned[0] if results.learned else ""
    means: dict[str, float] = {}
    of_tasks = select(results.frame, axis="")
    for (task, _, optimizer), rows in groups(of_tasks, ["task", "horizon", "optimizer"]):
        suffix = "" if optimizer == learned else f"/{optimizer}"
        accuracy = [name for name in heldout_figures(rows) if name == "accuracy"]
        for name in (*LOSSES, *accuracy):
            mean = float(np.mean(rows[name].to_numpy()))
            if np.isfinite(mean):
                means[f"{name}/heldout/{task}{suffix}"] = mean

    return means


def thinned(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Every n-th value of a column counted from its largest.

    n is the smallest that leaves as many rows as W&B shows.

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

"""Lightning's MLflow logger: one MLflow run for each run folder, whatever interrupts it.

mlflow is imported only when it is asked for.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from learned_opt.core.files import write_text
from learned_opt.core.optional_packages import require
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.hyperparameters import flat
from learned_opt.training.run_id import find_id, sweep_name

STORE = Path("runs/mlflow.db")
SQLITE = "sqlite:///"
NEEDED = ("mlflow", "sqlalchemy", "alembic")  # the last two for a store without a server
SHOWN = 250  # letters of a value that MLflow keeps everywhere
BATCH = 100  # values that MLflow takes at once

log = logging.getLogger(__name__)


class MLflow(MLFlowLogger):
    """Logs to a store of MLflow; steps are outer steps.

    A run that starts again in its folder, or from a checkpoint of a run that MLflow knows, goes on
    in the same MLflow run; what that has already is not logged twice. Figures that the store does
    not take are logged with the next ones: meta-training does not end for it.

    Args:
        save_dir: run folder.
        experiment_name: the experiment of the run; it is made where there is none.
        run_name: display name of the run.
        tracking_uri: the store, such as ``sqlite:///FILE`` or ``http://HOST:PORT``; None for
            MLFLOW_TRACKING_URI, or ``runs/mlflow.db`` where that is not set.
        tags: name -> text.
        sweep_dir: the folder that a sweep would have.
        checkpoint: the one that the run resumes from, or the run folder that holds it.

    Raises:
        ValueError: MLflow is not installed, or the store cannot be one.
    """

    def __init__(
        self,
        save_dir: str,
        experiment_name: str,
        run_name: str,
        tracking_uri: str | None,
        tags: Mapping[str, str],
        sweep_dir: str,
        checkpoint: str | None,
    ) -> None:
        require(NEEDED, "logger=mlflow", "mlflow")
        # neither lines about its tables nor, unless asked for, news to its makers
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

        folder = Path(save_dir).resolve()
        self._id_file = RunFolder(folder).mlflow_id
        self._last_steps: dict[str, int] = {}  # of figures that an earlier start has logged
        self._waiting: list[tuple[Mapping[str, float], int | None]] = []
        self._store = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_store()
        run_id = find_id(folder, checkpoint, self._id_file.name)
        self._goes_on = run_id is not None

        all_tags = {**tags, "run_folder": str(folder)}
        if sweep := sweep_name(folder, sweep_dir):
            all_tags["sweep"] = sweep
        try:
            super().__init__(experiment_name, run_name, self._store, all_tags, run_id=run_id)
        except Exception as error:  # of mlflow, of sqlalchemy or of a driver
            raise ValueError(f"MLflow does not start: {_sentence(error)}") from error

    @rank_zero_only
    def start(self) -> None:
        """Open the MLflow run and keep its id in the run folder.

        Raises:
            ConnectionError: the store does not answer, or does not know the run.
        """
        try:
            if self._goes_on:
                self.experiment.update_run(self.run_id, status="RUNNING")
                self._last_steps = self._logged_steps()
            else:
                self._make_experiment()
                self.experiment  # noqa: B018 - reading it makes the run
        except Exception as error:
            # a store that another file has replaced does not know the run
            mend = f" Its run is named in {self._id_file}." if self._goes_on else ""
            raise ConnectionError(f"MLflow does not start: {_sentence(error)}{mend}") from error

        write_text(self._id_file, f"{self.run_id}\n")

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *_: Any, **__: Any) -> None:
        from mlflow.entities import Param, RunTag

        kept = self.experiment.get_run(self.run_id).data.params
        new = []
        changed = []
        for name, value in flat(params).items():
            text = str(value)[:SHOWN]
            if name not in kept:
                new.append(Param(name, text))
            elif kept[name] != text:
                # MLflow lets no one change a parameter, as when a run goes on for longer
                changed.append(RunTag(f"later/{name}", text))

        for first in range(0, len(new), BATCH):
            self.experiment.log_batch(self.run_id, params=new[first : first + BATCH])
        for first in range(0, len(changed), BATCH):
            self.experiment.log_batch(self.run_id, tags=changed[first : first + BATCH])

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = {}
        for name, value in metrics.items():
            if step is None or step > self._last_steps.get(name, -1):
                new[name] = value
        if not new:
            return

        self._waiting.append((new, step))
        # rows that pile up are tried ever more seldom, as each try may wait for an answer
        if len(self._waiting).bit_count() == 1:
            self._send()

    @override
    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        from mlflow.exceptions import MlflowException

        self._send()
        # a comparison that is made again may have come to other figures
        self._last_steps = {}
        try:
            super().finalize(status)
        except MlflowException as error:
            log.warning("MLflow was not told of the end of the run: %s", _sentence(error))

    def _send(self) -> None:
        """Log the rows that wait, the oldest first."""
        from mlflow.exceptions import MlflowException

        while self._waiting:
            metrics, step = self._waiting[0]
            try:
                super().log_metrics(metrics, step)
            except MlflowException as error:
                count = len(self._waiting)
                log.warning("MLflow lacks %d rows of figures: %s", count, _sentence(error))
                return
            self._waiting.pop(0)

    def _make_experiment(self) -> None:
        """Make the experiment where there is none; several jobs of a sweep may want to at once."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            MlflowClient(self._store).create_experiment(self._experiment_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged_steps(self) -> dict[str, int]:
        """The last outer step of each figure that the run has."""
        steps = {}
        for name in self.experiment.get_run(self.run_id).data.metrics:
            history = self.experiment.get_metric_history(self.run_id, name)
            steps[name] = max(metric.step for metric in history)
        return steps


def start_runs(loggers: Iterable[Logger]) -> None:
    """Start the MLflow run where there is one, before anything is spent on the run.

    Raises:
        ConnectionError: the store does not answer, or does not know the run.
    """
    for logger in loggers:
        if isinstance(logger, MLflow):
            logger.start()


def _default_store() -> str:
    STORE.parent.mkdir(parents=True, exist_ok=True)
    return f"{SQLITE}{STORE}"


def _sentence(error: Exception) -> str:
    """The first line of what a store says, which may go on with a page of SQL."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}."

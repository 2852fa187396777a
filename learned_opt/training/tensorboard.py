"""Lightning's TensorBoard logger, in the run folder."""

import importlib
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from learned_opt.core.optional_packages import require
from learned_opt.runtime.run_folder import TENSORBOARD
from learned_opt.training.hyperparameters import flat


class TensorBoard(TensorBoardLogger):
    """Writes event files into ``tensorboard/`` of the run folder; steps are outer steps.

    A run that goes on writes another file into the same folder. Its first row tells TensorBoard to
    forget the rows from its own step on: those are what a killed process had done since the
    checkpoint from which this one goes on.

    Args:
        save_dir: run folder.
        flush_secs: seconds between two writes; checkpoints write too.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self, save_dir: str, flush_secs: int) -> None:
        require(("tensorboard",), "logger=tensorboard", "tensorboard")
        super().__init__(
            save_dir,
            name="",
            version=TENSORBOARD,
            default_hp_metric=False,
            flush_secs=flush_secs,
        )
        self._settings: dict[str, Any] = {}
        self._has_begun = False
        self._is_training = True

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *_: Any, **__: Any) -> None:
        # they are written with the first row, behind the step from which TensorBoard forgets
        self._settings |= params
        self.hparams = self._settings

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._has_begun:
            self._begin(step or 0)
        super().log_metrics(metrics, step)

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        # figures that follow, such as held-out ones, take nothing back
        self._is_training = False

    def _begin(self, step: int) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self.experiment._get_file_writer()
        if self._is_training:
            # of generated code, which type checkers do not see
            events: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
            start = events.SessionLog(status=events.SessionLog.START)
            writer.add_event(events.Event(session_log=start), step)
        # without the summary of an experiment the page of hyperparameters shows every figure
        _, session, _ = hparams(flat(self._settings), {})
        writer.add_summary(session, step)
        self._has_begun = True

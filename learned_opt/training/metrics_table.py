"""The metrics of a meta-training in memory: one row for each logged outer step."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from typing_extensions import override

from learned_opt.training.metrics_file import STEP, Row


class MetricsTable(Logger):
    """Keeps what ``MetricsFile`` writes, for a run without a folder.

    Attributes:
        rows: by outer step; ``step`` counts from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    @property
    @override
    def name(self) -> str:
        return "metrics"

    @property
    @override
    def version(self) -> str:
        return ""  # there is one table for each run

    @override
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: whoever asked for the run has its settings."""

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None, "Lightning numbers the rows"
        if self.rows and self.rows[-1][STEP] == step:
            self.rows[-1].update(metrics)
        else:
            self.rows.append({STEP: step, **metrics})

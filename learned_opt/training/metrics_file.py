"""``metrics.csv``: one row for each logged outer step, continued by a resumed run."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

Row = dict[str, Any]


class MetricsFile(Logger):
    """Appends rows to ``metrics.csv``; Lightning's own CSV logger deletes what an earlier start has written.

    The first row of a process drops the rows from its own step on: those are what a killed process had done since the
    checkpoint from which this one goes on.

    Args:
        save_dir: run folder.
        flush_every: rows between two writes; checkpoints write too.
    """

    def __init__(self, save_dir: str, flush_every: int) -> None:
        super().__init__()
        if flush_every < 1:
            raise ValueError(f"logger.csv.flush_every must be at least 1, got {flush_every}.")
        self.path, self.flush_every = Path(save_dir) / "metrics.csv", flush_every
        self.columns: list[str] = []
        self._pending: list[Row] = []
        self._taken_up = False

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """There is one for each run folder."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: Hydra has written the config into the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row, or to the last one."""
        assert step is not None, "Lightning numbers the rows"
        if not self._taken_up:
            self._take_up(step)
        if self._pending and self._pending[-1]["step"] == step:
            self._pending[-1].update(metrics)
            return
        if len(self._pending) >= self.flush_every:
            self.save()
        self._pending.append({"step": step, **metrics})

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not yet in the file, durably."""
        if not self._pending:
            return
        new = sorted({key for row in self._pending for key in row} - set(self.columns))
        if new:
            self._rewrite(
                ["step", *sorted({*self.columns, *new} - {"step"})], [*self._read(), *self._pending]
            )
        else:
            with self.path.open("a", newline="") as file:
                self._write_rows(file, self._pending)
        self._pending = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last rows."""
        self.save()

    def _take_up(self, step: int) -> None:
        self._taken_up = True
        if kept := [row for row in self._read() if int(row["step"]) < step]:
            self._rewrite([key for key in self.columns if any(row[key] for row in kept)], kept)
        else:
            self.path.unlink(missing_ok=True)
            self.columns = []

    def _read(self) -> list[Row]:
        """The rows of the file; a line that a kill has cut is none."""
        if not self.path.is_file():
            return []
        reader = csv.DictReader(
            line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")
        )
        rows = list(reader)
        self.columns = list(reader.fieldnames or [])
        return rows

    def _rewrite(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.columns = list(columns)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(self.columns)
            self._write_rows(file, rows)
        os.replace(partial, self.path)

    def _write_rows(self, file: Any, rows: Sequence[Row]) -> None:
        csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)
        file.flush()
        os.fsync(file.fileno())

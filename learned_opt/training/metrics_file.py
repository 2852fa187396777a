"""``metrics.csv``: one row for each logged outer step, continued by a resumed run."""

import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from learned_opt.core.files import write_text
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.whole_lines import read_rows

Row = dict[str, Any]
STEP = "step"
LATE = 30.0  # seconds after which rows are written whatever their number, for who follows the run


class MetricsFile(Logger):
    """Appends rows to ``metrics.csv``.

    Lightning's own CSV logger deletes what an earlier start has written.
    The first row of a process drops the rows from its own step on: those are what a killed
    process had done since the checkpoint from which this one goes on.

    Args:
        save_dir: run folder.
        flush_every: rows between two writes; checkpoints write too.

    Raises:
        ValueError: ``flush_every`` is not positive.
    """

    def __init__(self, save_dir: str, flush_every: int) -> None:
        super().__init__()
        if flush_every < 1:
            raise ValueError(f"flush_every must be at least 1, got {flush_every}.")
        self.path = RunFolder(Path(save_dir)).metrics
        self.flush_every = flush_every
        self.columns: list[str] = []
        self._pending: list[Row] = []
        self._taken_up = False
        self._saved = time.monotonic()

    @property
    @override
    def name(self) -> str:
        return self.path.name

    @property
    @override
    def version(self) -> str:
        return ""  # there is one file for each run folder

    @override
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: Hydra has written the config into the run folder."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None, "Lightning numbers the rows"
        if not self._taken_up:
            self._take_up(step)

        if self._pending and self._pending[-1][STEP] == step:
            self._pending[-1].update(metrics)
            return
        is_late = time.monotonic() - self._saved > LATE
        if len(self._pending) >= self.flush_every or is_late:
            self.save()
        self._pending.append({STEP: step, **metrics})

    @override
    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not yet in the file, durably."""
        self._saved = time.monotonic()
        if not self._pending:
            return

        names = set(self.columns).union(*self._pending)
        if names.difference(self.columns):
            rows = [*self._read(), *self._pending]
            self._rewrite([STEP, *sorted(names - {STEP})], rows)
        else:
            self._append(self._pending)
        self._pending = []

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _take_up(self, step: int) -> None:
        """Keep the rows of an earlier start that come before a step."""
        kept = [row for row in self._read() if int(row[STEP]) < step]
        self._taken_up = True
        if not kept:
            self.path.unlink(missing_ok=True)
            self.columns = []
            return

        # figures that only the dropped rows had leave no empty column
        used: set[str] = set()
        for row in kept:
            used.update(name for name, value in row.items() if value)
        columns = [name for name in self.columns if name in used]
        rows = []
        for row in kept:
            rows.append({name: row[name] for name in columns})
        self._rewrite(columns, rows)

    def _read(self) -> list[Row]:
        """The rows of the file, and its columns into ``columns``."""
        rows = read_rows(self.path, STEP)
        self.columns = list(rows[0]) if rows else []
        return rows

    def _append(self, rows: Sequence[Row]) -> None:
        """Write rows behind those of the file, or none of them."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                self._write_rows(file, rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # a full disk takes half of a row, behind which the next one would go on
            if self.path.exists():
                os.truncate(self.path, size)
            raise

    def _rewrite(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.columns = list(columns)
        content = io.StringIO(newline="")
        csv.writer(content, lineterminator="\n").writerow(self.columns)
        self._write_rows(content, rows)
        write_text(self.path, content.getvalue())

    def _write_rows(self, file: TextIO, rows: Sequence[Row]) -> None:
        csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)

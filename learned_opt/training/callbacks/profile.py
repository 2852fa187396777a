"""Where the time of meta-training goes, operation by operation."""

import gzip
import tempfile
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch.profiler import profile
from typing_extensions import override

from learned_opt.core.checks import check_at_least
from learned_opt.core.files import write_whole
from learned_opt.evaluation.cost.allocator import silent_profile
from learned_opt.runtime.run_folder import RunFolder

HEADINGS = ("operation", "calls", "self ms", "total ms", "self %")


class Profile(Callback):
    """Records a few outer steps with torch's profiler; only in the leader.

    At the end it prints a table of the operations that took most time and writes
    ``trace.json.gz`` into the run folder, for chrome://tracing and ui.perfetto.dev.

    Args:
        first: outer steps of this process before the first that is recorded.
        steps: outer steps that are recorded.
        rows: operations in the table.
        max_events: of the trace; one that has more is not written.

    Raises:
        ValueError: ``first`` is negative, or another number is not positive.
    """

    def __init__(self, first: int, steps: int, rows: int, max_events: int) -> None:
        check_at_least(0, first=first)
        check_at_least(1, steps=steps, rows=rows, max_events=max_events)

        self.first = first
        self.steps = steps
        self.rows = rows
        self.max_events = max_events
        self.console = Console(stderr=True)
        self._seen = 0  # outer steps of this process
        self._running: profile | None = None
        self._recorded: profile | None = None

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if trainer.is_global_zero and self._seen == self.first:
            records = silent_profile()
            records.start()
            self._running = records
        self._seen += 1

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if self._seen == self.first + self.steps:
            self._stop()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # the last of all: the bar of callbacks.progress is gone
        self._stop()
        if not trainer.is_global_zero:
            return
        if self._recorded is None:
            self._print(f"no outer step was profiled: there were {self._seen}, {self.first} first")
            return

        records = self._recorded
        self._recorded = None
        self._print_table(records)
        self._write_trace(records, RunFolder(Path(trainer.default_root_dir)).trace)

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._recorded = self._running
            self._running = None

    def _print_table(self, records: profile) -> None:
        events = records.key_averages()
        on_gpu = any(event.self_device_time_total for event in events)

        def self_time(event: Any) -> float:
            return event.self_device_time_total if on_gpu else event.self_cpu_time_total

        def total_time(event: Any) -> float:
            return event.device_time_total if on_gpu else event.cpu_time_total

        everything = sum(map(self_time, events)) or 1.0
        table = Table(*HEADINGS, title=f"{self.steps} outer steps on the {_device(on_gpu)}")
        for event in sorted(events, key=self_time, reverse=True)[: self.rows]:
            share = f"{100 * self_time(event) / everything:.1f}"
            times = (f"{1e-3 * time(event):.1f}" for time in (self_time, total_time))
            table.add_row(_operation(event.key), str(event.count), *times, share)
        self.console.print(table)

    def _write_trace(self, records: profile, path: Path) -> None:
        results: Any = records.profiler
        number = len(results.kineto_results.events())
        if number > self.max_events:
            self._print(
                f"no trace was written: it has {number:,} events, more than "
                f"callbacks.profile.max_events ({self.max_events:,}); lower "
                "callbacks.profile.steps or estimator.unroll_length"
            )
            return

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            records.export_chrome_trace(str(file))
            content = gzip.compress(file.read_bytes(), mtime=0)
        write_whole(path, content)
        self._print(f"trace: {path} ({number:,} events), for ui.perfetto.dev or chrome://tracing")

    def _print(self, sentence: str) -> None:
        self.console.print(sentence, soft_wrap=True, highlight=False)


def _operation(key: str) -> str:
    # Lightning makes the whole outer step inside of the outer optimizer's
    return "Python between operations" if key.startswith("Optimizer.step#") else key


def _device(on_gpu: bool) -> str:
    return "GPU" if on_gpu else "CPU"

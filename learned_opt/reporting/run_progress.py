"""How far an evaluation is, on the terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from typing_extensions import override

from learned_opt.evaluation.progress import Progress
from learned_opt.runtime.live_bar import LiveBar

SECONDS_BETWEEN = 20.0  # lines of a log file


class RunProgress(Progress):
    """A bar of the inner training runs of a task at a horizon, one after another.

    Elsewhere than on a terminal it is a line as each of them begins, and one now and then.

    Args:
        console: where to draw; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: LiveBar | None = None
        self.title = ""
        self.name = ""
        self.completed = 0.0

    def __enter__(self) -> Self:
        """Ready to be told."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal to others, after an error too."""
        self._stop()

    @override
    def begin(self, title: str, num_runs: int) -> None:
        self._stop()
        if not num_runs:
            return  # all is there already

        self.title = title
        self.name = ""
        self.completed = 0.0
        self.bar = LiveBar(f"{title}: run", num_runs, 0, self.console, SECONDS_BETWEEN)
        self.bar.start(title)
        if not self.bar.is_live:
            line = f"{title}: {num_runs} inner training runs"
            self.console.print(line, soft_wrap=True, highlight=False)

    @override
    def work_on(self, name: str) -> None:
        self.name = name
        self.advance(0)

    @override
    def advance(self, num_runs: float) -> None:
        self.completed += num_runs
        if self.bar:
            # sums of parts of runs are not exact
            done = min(round(self.completed, 6), self.bar.total)
            self.bar.update(done, self.title, self.name)

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
        self.bar = None

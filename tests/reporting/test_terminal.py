"""What runs show on a terminal: progress, tables that fit, debug lines."""

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from learned_opt.commands import cli
from learned_opt.reporting import run_progress
from learned_opt.reporting.run_progress import RunProgress
from learned_opt.reporting.tables import Table
from learned_opt.training.callbacks import progress
from learned_opt.training.callbacks.progress import ProgressBar

HEADINGS = ("optimizer", "mean loss", "steps to target")
ROWS = (("unf", "0.0665 ±0.0018", "62 (32/32)"), ("adam[x]", "0.1573 ±0.0093", "163 (22/32)"))


def console(width: int, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, legacy_windows=False)


def printed(screen: Console) -> list[str]:
    assert isinstance(screen.file, io.StringIO)
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [24, 32, 40, 80])
def test_a_table_fits_any_width_and_keeps_every_cell_whole(width) -> None:
    screen = console(width)
    screen.print(Table(HEADINGS, ROWS, "title"))
    lines = printed(screen)
    assert max(map(len, lines)) <= width
    for row in ROWS:
        for cell in row:
            if len(cell) + 17 <= width:  # beside the longest heading
                assert sum(cell in line for line in lines) == 1, cell
    if width >= 40:
        ends = set()
        for row in ROWS:
            (line,) = [line for line in lines if row[1] in line]
            ends.add(line.index(row[1]) + len(row[1]))
        assert len(ends) == 1  # aligned


def test_the_layout_follows_the_width() -> None:
    heights = []
    for width in (80, 40, 34):
        screen = console(width)
        screen.print(Table(HEADINGS, ROWS))
        heights.append(len(printed(screen)))
    # lines, the same under two lines of headings, blocks; and an empty line
    assert heights == [5, 6, 7]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_with_few_characters_shows_the_whole_table(encoding) -> None:
    raw = io.BytesIO()
    screen = Console(file=io.TextIOWrapper(raw, encoding), width=60, legacy_windows=False)
    screen.print(Table(["µ", *HEADINGS[1:]], ROWS, "mean ± half …"))
    screen.file.flush()
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[0].rstrip() == "mean +- half ..."
    assert "-----" in lines[2]
    assert lines[3].replace("|", " ").split() == ["unf", "0.0665", "+-0.0018", "62", "(32/32)"]
    assert len({len(line.rstrip()) for line in lines[2:5]}) == 1  # aligned


def train(bar: ProgressBar, num_steps: int, compiles: bool = True, **settings: Any) -> None:
    """Drive the callback as the trainer does."""
    trainer: Any = SimpleNamespace(
        **{"is_global_zero": True, "max_steps": num_steps, "global_step": 0, "callback_metrics": {}}
        | settings
    )
    bar.on_train_start(trainer, module(compiles))
    for step in range(trainer.global_step + 1, num_steps + 1):
        trainer.global_step = step
        trainer.callback_metrics = {"meta_loss/train": 0.5, "inner_steps_per_second": 1234.0}
        bar.on_train_batch_end(trainer, module(compiles))
    bar.teardown(trainer, module(compiles), "fit")


def module(compiles: bool) -> Any:
    """What the callback asks of the module."""
    problem = SimpleNamespace(unroll=SimpleNamespace(compiles=compiles))
    return SimpleNamespace(problems={"": problem})


@pytest.fixture(autouse=True)
def modules_of_names(monkeypatch) -> None:
    monkeypatch.setattr(progress, "meta_trainer", lambda pl_module: pl_module)


def test_elsewhere_than_on_a_terminal_progress_is_a_few_plain_lines() -> None:
    screen = console(40)
    train(ProgressBar(screen), 200)
    lines = printed(screen)
    assert len(lines) == 11
    assert lines[0] == "compiling the inner step ..."
    assert lines[1].startswith("outer step 20/200  loss 0.5000  1,234/s")
    assert lines[1].endswith("left")
    assert "\x1b" not in "".join(lines)


def test_what_is_not_compiled_is_not_said_to_be() -> None:
    screen = console(40)
    train(ProgressBar(screen), 200, compiles=False)
    lines = printed(screen)
    assert len(lines) == 10
    assert lines[0].startswith("outer step 20/200")


@pytest.mark.parametrize(
    ("width", "words"), [(40, "loss 0.5000  1,234/s"), (80, "meta-loss 0.5000  1,234 inner")]
)
def test_on_a_terminal_the_bar_is_one_line(width, words) -> None:
    screen = console(width, terminal=True)
    train(ProgressBar(screen), 20)
    drawn = screen.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert drawn.count("\n") == 1  # drawn again in its place
    last = Text.from_ansi(drawn.split("\x1b[2K")[-1].split("\n")[0]).plain
    assert "20/20" in last
    assert words in last
    assert len(last) <= width


def start(screen: Console) -> ProgressBar:
    bar = ProgressBar(screen)
    trainer: Any = SimpleNamespace(is_global_zero=True, max_steps=20, global_step=0)
    bar.on_train_start(trainer, module(True))
    return bar


def test_validation_is_told_once_elsewhere_than_on_a_terminal() -> None:
    screen = console(40)
    bar = start(screen)
    bar.work_on("validating")
    bar.work_on("validating")
    assert printed(screen) == ["compiling the inner step ...", "validating ..."]


def test_validation_is_seen_at_once_on_a_terminal() -> None:
    screen = console(80, terminal=True)
    bar = start(screen)
    bar.work_on("validating")
    drawn = screen.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "validating" in Text.from_ansi(drawn.split("\x1b[2K")[-1]).plain
    nobody: Any = None
    bar.teardown(nobody, nobody, "fit")


def test_processes_but_the_first_are_silent() -> None:
    screen = console(80)
    train(ProgressBar(screen), 20, is_global_zero=False)
    assert printed(screen) == []


def evaluate(screen: Console) -> None:
    """Tell of 40 runs as a suite does, with a setting that is there already."""
    with RunProgress(screen) as told:
        told.begin("mlp horizon 200", 40)
        for name, num_runs in (("unf", 8), ("adam[x]", 32)):
            told.work_on(name)
            for _ in range(10):
                told.advance(num_runs / 10)
        told.begin("mlp horizon 400", 0)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_an_evaluation_has_a_bar_with_what_is_done_of_what(width) -> None:
    screen = console(width, terminal=True)
    evaluate(screen)
    drawn = screen.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    last = Text.from_ansi(drawn.split("\x1b[2K")[-1].split("\n")[0]).plain
    assert "40/40" in last
    assert "adam[x]" in last
    assert ("mlp horizon 200" in last) == (width > 72)
    assert len(last) <= width


def test_in_a_log_file_an_evaluation_is_a_line_now_and_then(monkeypatch) -> None:
    screen = console(40)
    evaluate(screen)
    assert printed(screen) == ["mlp horizon 200: 40 inner training runs"]

    monkeypatch.setattr(run_progress, "SECONDS_BETWEEN", 0.0)
    screen = console(40)
    evaluate(screen)
    lines = printed(screen)
    assert len(lines) == 11
    assert lines[1].startswith("mlp horizon 200: run 4/40  unf")


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


def test_log_lines_go_above_the_bar_while_it_is_shown() -> None:
    stream, bar = Terminal(), ProgressBar(console(80, terminal=True))
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        trainer: Any = SimpleNamespace(is_global_zero=True, max_steps=2, global_step=0)
        bar.on_train_start(trainer, module(compiles=True))
        logging.getLogger("learned_opt").warning("not finite")
        assert stream.getvalue() == ""
        bar.teardown(trainer, module(compiles=True), "fit")
        assert handler.stream is stream
        assert "not finite" in "".join(printed(bar.console))
    finally:
        logging.getLogger().removeHandler(handler)


def test_v_is_short_for_debug_lines_of_this_program(monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "argv", ["learned_opt", "+task=mlp", "-v"])
    cli.entry_point(lambda: seen.extend(sys.argv[1:]))
    assert seen == ["+task=mlp", "hydra.verbose=[learned_opt,tasks,__main__]"]

"""The report of a run while it runs: written again and again, on a page that reloads itself."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from learned_opt.core.files import write_text
from learned_opt.reporting import numbers, sections
from learned_opt.reporting.record import Record, points, read_record
from learned_opt.reporting.run_report import MISSING, report_sections, title_of
from learned_opt.reporting.sections import Part
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.runtime.running_job import Running

RELOAD = 5  # seconds between two reloads of the page
POLL = 2.0  # seconds between two looks at the files
REWRITE = 30.0  # seconds after which new rows without a validation are drawn too
VALID = "meta_loss/valid"


def follow(
    path: Path,
    out: Path | None,
    print_line: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the page of a run at each of its validations, until it has ended or Ctrl-C.

    The run itself does nothing for it. The page that is left does not reload.

    Args:
        path: run folder; the run may not have logged anything yet.
        out: the page; None for ``report.html`` in the run folder.
        print_line: called with where the page is, and with how it ended.
        sleep: waits for a number of seconds.

    Raises:
        ValueError: it is no run folder, or a file of the ended run is damaged.
    """
    folder = RunFolder(path)
    if not folder.hydra.is_dir() and not folder.job.is_file():
        raise ValueError(f"{path} is no run folder: it has neither .hydra nor job.json.")

    page = out or folder.report
    print_line(f"{page.resolve().as_uri()} reloads itself; Ctrl-C ends that, and not the run")
    running = Running(folder)
    ended = "not followed any more"
    try:
        _write_while(running, folder, page, sleep)
        ended = running.sentence()
    except KeyboardInterrupt:
        pass
    finally:
        _write(folder, page, running, reload=0)
    print_line(f"{ended}; written: {page}")


def _write_while(
    running: Running, folder: RunFolder, page: Path, sleep: Callable[[float], None]
) -> None:
    drawn: tuple[Any, ...] = ()
    size = 0
    written = 0.0
    while running.goes_on():
        validations = _validations(folder)
        state = (validations, folder.evaluation.is_file(), folder.metrics.is_file())
        new_size = folder.metrics.stat().st_size if folder.metrics.is_file() else 0
        is_late = new_size != size and time.monotonic() - written > REWRITE

        if state != drawn or is_late:
            try:
                _write(folder, page, running, RELOAD)
            except ValueError:
                pass  # the run is in the middle of a line: the page before it stays
            else:
                drawn = state
                size = new_size
                written = time.monotonic()
        sleep(POLL)


def _validations(folder: RunFolder) -> int:
    """How many rows of ``metrics.csv`` hold a validation."""
    if not folder.metrics.is_file():
        return 0
    heading, *rows = folder.metrics.read_text().splitlines() or [""]
    columns = [i for i, name in enumerate(heading.split(",")) if name.startswith(VALID)]
    if not columns:
        return 0

    number = 0
    for row in rows:
        cells = row.split(",")
        number += len(cells) > columns[0] and bool(cells[columns[0]])
    return number


def _write(folder: RunFolder, page: Path, running: Running, reload: int) -> None:
    """Write the page; without a file to make it of, one that says so."""
    has_files = folder.metrics.is_file() or folder.evaluation.is_file()
    record = read_record(folder.path) if has_files else Record(folder.path)

    parts: dict[str, list[Part]] = {}
    if reload or not has_files:
        parts["Progress"] = _progress(record, running, reload)
    if has_files:
        parts |= report_sections(record)
        if reload:
            # what comes only at the end is not missed before
            parts.pop(MISSING, None)

    title = title_of(record) if record.metadata else f"run {folder.path.resolve().name}"
    command = " ".join(["python -m learned_opt", *record.overrides]) if record.overrides else ""
    write_text(page, sections.page(title, parts, command, reload))


def _progress(record: Record, running: Running, reload: int) -> list[Part]:
    if record.metrics.empty:
        steps = "none is logged yet"
    else:
        steps = f"{record.metrics['step'].to_numpy().max() + 1:.0f}{_of_all(record)}"

    validations = points(record.metrics, VALID)
    validation = numbers.number(validations[-1][1]) if validations else numbers.ABSENT
    facts = {"state": running.sentence(), "outer steps": steps, "last validation": validation}
    parts: list[Part] = [sections.facts("progress", facts)]
    if reload:
        clock = datetime.now().strftime("%H:%M:%S")
        parts.append(f"Drawn at {clock}; the page reloads itself every {reload} seconds.")
    return parts


def _of_all(record: Record) -> str:
    """How many outer steps there will be, as the config says; empty where it does not."""
    config = yaml.safe_load(record.config) if record.config else None
    trainer = config.get("trainer") if isinstance(config, dict) else None
    max_steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    return f" of {max_steps}" if isinstance(max_steps, int) else ""

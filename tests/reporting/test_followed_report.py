"""``report RUN --follow``: the page of a run that goes on, is killed, or has not begun to log."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learned_opt.commands import report
from learned_opt.core.files import write_text
from learned_opt.reporting.followed_report import follow
from learned_opt.runtime import job_file
from learned_opt.runtime.run_folder import RunFolder
from tests.helpers.run_folders import Page

REFRESH = '<meta http-equiv="refresh"'


def write_rows(folder: RunFolder, validations: dict[int, float], steps: int) -> None:
    lines = ["step,meta_loss/train,meta_loss/valid"]
    lines += [f"{step},{1 / (step + 1)},{validations.get(step, '')}" for step in range(steps)]
    write_text(folder.metrics, "\n".join(lines) + "\n")


@pytest.fixture
def running(tmp_path) -> RunFolder:
    """The folder of a run that this process seems to do, and that has logged nothing."""
    folder = RunFolder(tmp_path / "run")
    write_text(folder.config, "trainer:\n  max_steps: 40\n")
    write_text(folder.overrides, "- +task=mlp\n")
    job_file.write(folder.path, job_file.started("running", ["+task=mlp"]))
    return folder


def acting(*actions: Callable[[], None]) -> Callable[[float], None]:
    """A wait in which something happens: the first action in the first one, and so on."""
    rest: Iterator[Callable[[], None]] = iter(actions)
    return lambda _: next(rest)()


def test_it_is_written_at_each_validation_and_ends_with_the_run(running) -> None:
    pages: list[str] = []
    lines: list[str] = []

    def keep() -> None:
        pages.append(running.report.read_text())

    def first_rows() -> None:
        keep()
        write_rows(running, {}, 5)

    def more_rows() -> None:
        keep()
        write_rows(running, {}, 9)

    def validate() -> None:
        keep()
        write_rows(running, {9: 0.5}, 10)

    def end() -> None:
        keep()
        record = job_file.read(running.path)
        job_file.write(running.path, record | {"state": "finished", "value": 0.5})

    follow(running.path, None, lines.append, acting(first_rows, more_rows, validate, end))

    assert all(REFRESH in page for page in pages)
    progress = [Page(page).table("progress") for page in pages]
    steps = [table["outer steps"]["value"] for table in progress]
    # rows without a validation do not draw it again, unless they are the first
    assert steps == ["none is logged yet", "5 of 40", "5 of 40", "10 of 40"]
    assert [table["last validation"]["value"] for table in progress][1:] == ["-", "-", "0.5000"]
    assert progress[0]["state"]["value"].startswith("running on ")
    assert "What is missing" not in pages[-1]

    last = running.report.read_text()
    assert REFRESH not in last
    assert "<script" not in last + pages[-1]
    assert "What is missing" in last  # its theta is not there
    assert lines[-1] == f"the run has finished; written: {running.report}"


def test_ctrl_c_ends_it_and_leaves_a_page_that_stays(running, tmp_path) -> None:
    lines: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "page.html"
    follow(running.path, out, lines.append, acting(interrupt))
    assert REFRESH not in out.read_text()
    assert "none is logged yet" in out.read_text()
    assert lines[-1] == f"not followed any more; written: {out}"
    assert not running.report.exists()


def test_tasks_of_a_mix_have_a_picture_each(running) -> None:
    lines = ["step,meta_loss/train,meta_loss/train/mlp,meta_loss/train/cnn"]
    lines += [f"{step},1.0,{step + 1},{step + 2}" for step in range(3)]
    write_text(running.metrics, "\n".join(lines) + "\n")

    def end() -> None:
        job_file.write(
            running.path, job_file.read(running.path) | {"state": "finished", "value": 1}
        )

    follow(running.path, None, lines.append, acting(end))
    table = Page(running.report.read_text()).table("task")
    assert {task: row["last meta-loss"] for task, row in table.items()} == {
        "mlp": "3.0000",
        "cnn": "4.0000",
    }


def test_half_a_line_does_not_end_it(running) -> None:
    def damage() -> None:
        write_text(running.metrics, "step,meta_loss/train\n0,1,2,3\n")

    def mend() -> None:
        write_rows(running, {0: 0.5}, 1)

    def end() -> None:
        assert "1 of 40" in running.report.read_text()
        job_file.write(
            running.path, job_file.read(running.path) | {"state": "failed", "error": "x"}
        )

    lines: list[str] = []
    follow(running.path, None, lines.append, acting(damage, mend, end))
    assert lines[-1].startswith("the run has failed: x; written: ")


def test_a_run_that_was_killed_is_not_waited_for(running) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    record = job_file.read(running.path) | {"pid": child}
    job_file.write(running.path, record)
    lines: list[str] = []
    follow(running.path, None, lines.append, acting())
    assert lines[-1].startswith("the run was killed; it had been running since ")


def test_what_is_no_run_or_several_is_a_sentence(tmp_path, monkeypatch, capsys) -> None:
    for words, message in (
        ([str(tmp_path)], "is no run folder: it has neither .hydra nor job.json."),
        ([str(tmp_path), str(tmp_path)], "--follow takes one run, got 2."),
    ):
        monkeypatch.setattr(sys, "argv", ["report", *words, "--follow"])
        with pytest.raises(SystemExit) as stop:
            report.main()
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_run_that_has_ended_gets_its_page_at_once(running, monkeypatch, capsys) -> None:
    write_rows(running, {0: 0.5}, 3)
    job_file.write(running.path, job_file.read(running.path) | {"state": "finished", "value": 0.5})
    monkeypatch.setattr(sys, "argv", ["report", str(running.path), "--follow"])
    report.main()
    assert "the run has finished; written: " in capsys.readouterr().out
    assert REFRESH not in Path(running.report).read_text()

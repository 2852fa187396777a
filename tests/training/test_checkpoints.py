"""Checkpoint files and metrics.csv: whole or not there, checked, continued."""

import csv
import errno
import os
import resource
from pathlib import Path

import lightning
import pytest
import torch

from learned_opt.core.errors import RunError
from learned_opt.core.files import write_whole
from learned_opt.training import validation_loss
from learned_opt.training.checkpoint_files import (
    CheckpointError,
    find_checkpoint,
    is_whole,
    newest,
    num_tasks,
    prune,
    read,
)
from learned_opt.training.checkpoint_io import WholeFiles
from learned_opt.training.metrics_file import MetricsFile
from tests.training.test_trainer import fit, make_module


def write(folder: Path, *steps: int) -> None:
    for step in steps:
        WholeFiles().save_checkpoint(
            {"estimator_state": {}, "step": step}, folder / f"step_{step}.ckpt"
        )


def test_the_newest_whole_checkpoint_is_used_and_the_damaged_ones_are_named(
    tmp_path, caplog
) -> None:
    write(tmp_path, 2, 10, 9, 11)
    assert newest(tmp_path) == tmp_path / "step_11.ckpt"
    (tmp_path / "step_11.ckpt").write_bytes((tmp_path / "step_11.ckpt").read_bytes()[:-100])
    content = bytearray((tmp_path / "step_10.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "step_10.ckpt").write_bytes(content)
    assert newest(tmp_path) == tmp_path / "step_9.ckpt"
    (tmp_path / "step_9.ckpt.sha256").unlink()
    assert newest(tmp_path) == tmp_path / "step_2.ckpt"
    assert [f"step_{step}.ckpt is damaged" in caplog.text for step in (11, 10, 9, 2)] == [
        True,
        True,
        True,
        False,
    ]
    (tmp_path / "step_2.ckpt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"every checkpoint in .* is damaged; move the folder away"
    ):
        newest(tmp_path)
    assert newest(tmp_path / "nowhere") is None


def test_a_checkpoint_that_a_person_names_is_verified(tmp_path, caplog) -> None:
    write(tmp_path, 2)
    file = tmp_path / "step_2.ckpt"
    assert find_checkpoint(file) == file

    content = file.read_bytes()
    for position in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(
            ValueError, match=r"is damaged, .* its SHA-256 is \w{12}\.\.\., but step"
        ):
            find_checkpoint(file)

    file.write_bytes(content)
    (tmp_path / "step_2.ckpt.sha256").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"but step_2.ckpt.sha256 says .*choose another checkp"):
        find_checkpoint(file)
    assert not caplog.records


def test_a_checkpoint_without_a_checksum_is_taken_with_a_warning(tmp_path, caplog) -> None:
    write(tmp_path, 2)
    file = tmp_path / "copy.ckpt"
    file.write_bytes((tmp_path / "step_2.ckpt").read_bytes())
    assert find_checkpoint(file) == file
    assert f"checkpoint {file} cannot be verified: there is no copy.ckpt.sha256" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"",
        b"\x80\x04",
        b"PK\x03\x04",
        {"estimator_state": {}},
        {"state_dict": {}, "estimator_state": {"step": 3}},
        {"state_dict": [], "estimator_state": {}},
        [1],
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, content) -> None:
    file = tmp_path / "passwd"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(
        ValueError, match=r"^checkpoint .*passwd (cannot be read|is no checkpoint of)"
    ):
        read(file)


@pytest.mark.parametrize("content", [None, "", "step,loss\n", "step,loss\n0,1.0\n1,"])
def test_a_run_that_validated_nothing_has_no_value(tmp_path, content) -> None:
    """Without ``logger.csv``, or after a run that was finished, there is no metrics.csv."""
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    assert validation_loss.last(tmp_path / "metrics.csv", [""]) is None


def test_the_checksum_is_that_of_sha256sum(tmp_path) -> None:
    write(tmp_path, 3)
    digest, name = (tmp_path / "step_3.ckpt.sha256").read_text().split()
    assert (len(digest), name) == (64, "step_3.ckpt")
    assert is_whole(tmp_path / "step_3.ckpt")


def test_pruning_keeps_the_last_ones_and_removes_what_kills_have_left(tmp_path) -> None:
    write(tmp_path, 2, 4, 6, 99)
    (tmp_path / "step_8.ckpt.partial").write_bytes(b"half")
    (tmp_path / "step_8.ckpt.sha256").write_text("written before its checkpoint")
    prune(tmp_path, step=6, keep=2)  # 99 is damaged: the run goes on from 6
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["step_4.ckpt", "step_4.ckpt.sha256", "step_6.ckpt", "step_6.ckpt.sha256"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_the_run_with_a_sentence_and_the_checkpoint_before_is_whole(
    tmp_path,
) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write alike."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(lightning.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            if trainer.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))

    try:
        with pytest.raises(
            CheckpointError,
            match=r"step_4.ckpt: File too large. The checkpoint of outer step 2 is who",
        ):
            fit(make_module(), tmp_path, Fill(), every=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step_2.ckpt", "step_2.ckpt.sha256"]
    assert newest(folder) == folder / "step_2.ckpt"


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(tmp_path) -> None:
    straight, again = make_module(), make_module()
    fit(straight, tmp_path / "straight", every=2)
    fit(make_module(), tmp_path / "damaged", every=2, steps=4)
    (tmp_path / "damaged/checkpoints/step_4.ckpt").write_bytes(b"")
    ckpt = newest(tmp_path / "damaged/checkpoints")
    assert ckpt == tmp_path / "damaged/checkpoints/step_2.ckpt"
    fit(again, tmp_path / "damaged", every=2, ckpt=ckpt)
    assert all(torch.equal(straight.theta[name], again.theta[name]) for name in straight.theta)
    for step in (4, 6):
        assert is_whole(tmp_path / f"damaged/checkpoints/step_{step}.ckpt")


def test_a_checkpoint_knows_its_numbers_of_tasks(tmp_path) -> None:
    """A run with num_tasks=auto goes on with the number that it had."""
    fit(make_module(), tmp_path / "one", steps=1)
    fit(make_module("deep_set", tasks=("mlp", "cnn")), tmp_path / "mix", steps=1)
    assert num_tasks(tmp_path / "one/checkpoints/step_1.ckpt") == {"": 3}
    assert num_tasks(tmp_path / "mix/checkpoints/step_1.ckpt") == {"mlp": 3, "cnn": 3}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_metrics_go_on_where_the_checkpoint_was(tmp_path) -> None:
    first = MetricsFile(str(tmp_path), flush_every=2)
    for step in range(12):
        if step % 4 == 3:
            first.log_metrics({"valid": 0.5}, step)  # the row of the step follows
        first.log_metrics({"loss": step / 3}, step)
    first.save()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1")  # killed while it wrote row 12
    again = MetricsFile(str(tmp_path), flush_every=2)
    for step in (10, 11, 12):
        again.log_metrics({"loss": -1.0, "late": 1.0}, step)
    again.finalize("success")
    written = rows(tmp_path)
    assert [int(row["step"]) for row in written] == list(range(13))
    assert [float(row["loss"]) for row in written] == [step / 3 for step in range(10)] + [-1.0] * 3
    assert [row["valid"] for row in written[:8]] == ["", "", "", "0.5"] * 2
    assert [row["late"] for row in written] == [""] * 10 + ["1.0"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_columns_of_dropped_rows_alone_are_dropped_with_them(tmp_path) -> None:
    """A run that goes on from before its first validation, as its last checkpoint is damaged."""
    first = MetricsFile(str(tmp_path), flush_every=1)
    for step in range(4):
        first.log_metrics({"loss": 1.0}, step)
    first.log_metrics({"valid": 0.5}, 3)
    first.finalize("success")

    again = MetricsFile(str(tmp_path), flush_every=1)
    again.log_metrics({"loss": 2.0}, 2)
    again.finalize("success")
    written = rows(tmp_path)
    assert [row["loss"] for row in written] == ["1.0", "1.0", "2.0"]
    assert list(written[0]) == ["step", "loss"]


def test_a_full_disk_leaves_no_half_of_a_row(tmp_path) -> None:
    metrics = MetricsFile(str(tmp_path), flush_every=1)
    metrics.log_metrics({"loss": 1.0}, 0)
    metrics.save()
    before = (tmp_path / "metrics.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    metrics.log_metrics({"loss": 1.0 / 3}, 1)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            metrics.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    metrics.finalize("failed")  # Lightning calls it after the error
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"step,loss\n0,1,2\n", "row 1 does not fit its columns"),
        (b"step,loss\n0,1\n1\n", "row 2 does not fit its columns"),
        (b"step,loss\nx,1\n", "row 1 does not fit its columns"),
        (b"loss\n1\n", "row 1 does not fit its columns"),
        (b"step,loss\n0,nan\n1,\n2,x1\n", "row 3 holds 'x1' in the column loss, which must be a"),
        (b"step,loss\n\xff,1\n", "'utf-8' codec"),
    ],
)
def test_damaged_metrics_are_one_sentence_and_stay(tmp_path, content, message) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    metrics = MetricsFile(str(tmp_path), flush_every=1)
    with pytest.raises(RunError, match=f"metrics.csv is damaged: .*{message}.* move it away"):
        metrics.log_metrics({"loss": 1.0}, 2)
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_metrics_of_a_run_without_a_checkpoint_start_anew(tmp_path) -> None:
    for value in (1.0, 2.0):
        metrics = MetricsFile(str(tmp_path), flush_every=1)
        metrics.log_metrics({"loss": value}, 0)
        metrics.finalize("success")
    assert rows(tmp_path) == [{"step": "0", "loss": "2.0"}]


def test_no_rows_leave_the_file_alone(tmp_path) -> None:
    """A finished run that is started again."""
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1.0\n")
    MetricsFile(str(tmp_path), flush_every=1).finalize("success")
    assert rows(tmp_path) == [{"step": "0", "loss": "1.0"}]

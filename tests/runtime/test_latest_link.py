"""The link to the newest run: made with its folder, followed in words, gone with refused input."""

import logging
import os
from pathlib import Path

import pytest

from learned_opt.core import files
from learned_opt.runtime import latest_link, new_folder


def test_the_link_points_to_the_newest_folder(tmp_path) -> None:
    first = new_folder.claim(tmp_path / "runs" / "mlp" / "1")
    second = new_folder.claim(tmp_path / "runs" / "mlp" / "1")
    link = first.with_name("latest")
    assert os.readlink(link) == second.name == "1_2"  # relative: a moved folder of runs keeps it
    # input that is refused leaves neither folder nor link
    new_folder.take_back(second, "")
    assert os.readlink(link) == first.name
    new_folder.take_back(first, "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_later_keeps_its_link(tmp_path) -> None:
    first = new_folder.claim(tmp_path / "1")
    second = new_folder.claim(tmp_path / "2")
    new_folder.take_back(first, "")
    assert os.readlink(tmp_path / "latest") == second.name


def test_without_links_there_is_a_debug_line(tmp_path, monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files, "write_link", refuse)
    with caplog.at_level(logging.DEBUG):
        folder = new_folder.claim(tmp_path / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    (record,) = caplog.records
    assert (record.levelname, "Function not implemented" in record.message) == ("DEBUG", True)
    new_folder.take_back(folder, "")


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_else_is_called_latest_stays(tmp_path, is_folder) -> None:
    mine = tmp_path / "latest"
    if is_folder:
        mine.mkdir()
    else:
        mine.write_text("mine")
    new_folder.take_back(new_folder.claim(tmp_path / "1"), "")
    assert not mine.is_symlink()
    assert mine.is_dir() == is_folder


@pytest.mark.parametrize(
    ("word", "followed"),
    [
        ("hydra.run.dir=runs/mlp/latest", "hydra.run.dir=runs/mlp/7"),
        ("theta=runs/mlp/latest", "theta=runs/mlp/7"),
        ("checkpoint=runs/mlp/latest/", "checkpoint=runs/mlp/7/"),
        ("theta={a: runs/mlp/latest, b: x}", "theta={a: runs/mlp/7, b: x}"),
        ("theta=[runs/mlp/latest/theta.safetensors,x]", "theta=[runs/mlp/7/theta.safetensors,x]"),
        ("runs/mlp/latest", "runs/mlp/7"),
        ("runs/rnn/latest", "runs/rnn/latest"),  # points nowhere
        ("name=latest", "name=latest"),
        ("+card=my_latest", "+card=my_latest"),
    ],
)
def test_words_follow_the_link(tmp_path, monkeypatch, word, followed) -> None:
    monkeypatch.chdir(tmp_path)
    new_folder.claim(Path("runs/mlp/7"))
    Path("runs/rnn").mkdir()
    Path("runs/rnn/latest").symlink_to("3")
    assert latest_link.followed([word]) == [followed]


def test_a_pattern_of_the_shell_names_the_newest_run_once(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    new_folder.claim(Path("runs/1"))
    new_folder.claim(Path("runs/2"))
    assert latest_link.followed(["runs/1", "runs/2", "runs/latest"]) == ["runs/1", "runs/2"]

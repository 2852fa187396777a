"""The only writer: a file is there whole, or as it was, whatever happens in between."""

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from learned_opt.core.files import write_json, write_text, write_whole

SIZE = 200_000


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def write_often(path: Path, digit: bytes) -> None:
    for _ in range(20):
        write_whole(path, digit * SIZE)


def test_a_file_is_replaced_and_its_folder_made(tmp_path) -> None:
    path = tmp_path / "new" / "theta"
    for content in (b"0123", b"45"):
        write_whole(path, content)
        assert path.read_bytes() == content
    write_whole(path, memoryview(bytearray(b"678")))
    assert path.read_bytes() == b"678"
    assert names(path.parent) == ["theta"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, function, error
) -> None:
    path = tmp_path / "theta"
    write_whole(path, b"old")

    def fails(*arguments: object) -> None:
        raise error("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails)
        with pytest.raises(error, match="no space left"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["theta"]


def test_a_value_of_the_wrong_type_leaves_nothing(tmp_path) -> None:
    with pytest.raises(TypeError):
        write_whole(tmp_path / "theta", "text")  # pyright: ignore[reportArgumentType]
    assert names(tmp_path) == []


@pytest.mark.parametrize("start", [multiprocessing.get_context("spawn").Process, threading.Thread])
def test_several_writers_at_once_leave_one_whole_file(tmp_path, start) -> None:
    path = tmp_path / "theta"
    write_whole(path, b"0" * SIZE)
    writers = [start(target=write_often, args=(path, digit)) for digit in (b"1", b"2")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert len(content) == SIZE  # never half of one
        assert len(set(content)) == 1  # never a mixture of two
    for writer in writers:
        writer.join()
        assert getattr(writer, "exitcode", 0) == 0
    assert path.read_bytes()[:1] in (b"1", b"2")
    assert names(tmp_path) == ["theta"]


def test_text_is_utf8(tmp_path) -> None:
    write_text(tmp_path / "page", "θ → ∞\n")
    assert (tmp_path / "page").read_bytes() == "θ → ∞\n".encode()


def test_json_is_read_back(tmp_path) -> None:
    value = {"loss": [0.5, None], "name": "unf"}
    write_json(tmp_path / "result.json", value)
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text) == value
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_it_has_no_word_for(tmp_path, number) -> None:
    write_json(tmp_path / "result.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "result.json", {"loss": number})
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 1.0}
    assert names(tmp_path) == ["result.json"]

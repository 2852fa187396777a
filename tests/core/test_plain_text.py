"""Streams that cannot encode what they are to print."""

import io
import os
import subprocess
import sys

from learned_opt.core import plain_text


def test_streams_write_plain_characters_and_raw_bytes_of_file_names(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    plain_text.write_any_text()
    print("±0.5 µs — naïve 中 name-\udcff", flush=True)
    assert raw.getvalue() == b"+-0.5 us - naive \\u4e2d name-\xff\n"


def test_a_stream_that_knows_a_character_keeps_it(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1"))
    plain_text.write_any_text()
    print("± →", flush=True)
    assert raw.getvalue() == "± ->\n".encode("latin-1")


def test_the_program_prints_in_the_plainest_of_locales() -> None:
    """No torch is imported: a second."""
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "learned_opt", "a±b"]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(b"learned_opt: unknown verb 'a")
    assert result.stderr.count(b"\n") == 1

"""Runs whose output nobody reads any more."""

import os
import sys

import pytest
from rich.console import Console

from learned_opt.runtime.lasting_output import lasting_output


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_gone_does_not_end_a_run(monkeypatch, stream) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as broken:
        monkeypatch.setattr(sys, stream, broken)
        with lasting_output():
            print("first", file=getattr(sys, stream), flush=True)
            Console(stderr=stream == "stderr").print("second")
            getattr(sys, stream).writelines(["third\n"])
        assert getattr(sys, stream) is broken
        broken.flush()  # nothing is left that could not be written


def test_what_is_read_arrives(monkeypatch) -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting_output():
            print("first")
            sys.stdout.writelines(["second\n"])
    assert os.read(reading, 100) == b"first\nsecond\n"
    os.close(reading)

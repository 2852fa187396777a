"""Commands as people type them, in this process, which has imported everything already."""

import subprocess
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from learned_opt.commands import front_door


def run_here(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What a person types behind ``python -m learned_opt``, without a process of its own.

    Args:
        folder: where the person is.
        words: of the command line.

    Returns:
        CompletedProcess: as ``subprocess.run`` gives it, with texts.
    """
    code = 0
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        output = stack.enter_context(TemporaryFile("w+"))
        errors = stack.enter_context(TemporaryFile("w+"))
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["learned_opt", *words])
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                front_door.main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1

        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(words, code, *texts)

"""A run beside another program keeps its share of the cores.

Ratios of rates that are measured in turns; nothing else should run on the machine.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from learned_opt.core.spinning import CHOICES_OF_USER
from learned_opt.runtime.machine import busy_machine

SECONDS = 4.0
ROUNDS = 3
DECIDING = {"OMP_NUM_THREADS", *CHOICES_OF_USER}


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) != 2, reason="the shares are those of two cores")
def test_runs_keep_their_share(tmp_path: Path) -> None:
    if busy_machine():
        pytest.skip(f"the machine is {busy_machine()}")

    _rates(tmp_path / "compiles", 1)
    quiet: list[float] = []
    beside_one: list[float] = []
    two_at_once: list[float] = []
    for number in range(ROUNDS):
        quiet += _rates(tmp_path / f"quiet{number}", 1)
        with _busy_thread():
            beside_one += _rates(tmp_path / f"beside{number}", 1)
        two_at_once += _rates(tmp_path / f"two{number}", 2)

    assert median(beside_one) > 0.5 * median(quiet), (quiet, beside_one)
    assert min(two_at_once) > 0.4 * median(quiet), (quiet, two_at_once)


def _rates(folder: Path, number: int) -> list[float]:
    """Inner steps a second of runs at once."""
    folder.mkdir()
    words = [sys.executable, "-m", "tests.helpers.speed", str(folder), str(number), str(SECONDS)]
    environment = {name: value for name, value in os.environ.items() if name not in DECIDING}
    runs = []
    for _ in range(number):
        runs.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    return [float(run.communicate()[0]) for run in runs]


@contextmanager
def _busy_thread() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()

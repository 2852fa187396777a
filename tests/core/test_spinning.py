"""How long OpenMP's threads spin."""

import os
import re
import subprocess
import sys

import pytest

from learned_opt.core.spinning import CHOICES_OF_USER, SPIN_COUNT

# OpenMP prints what it has understood
SHOWN = {"OMP_DISPLAY_ENV": "VERBOSE"}
TELL = "import learned_opt, os; print(os.environ.get('GOMP_SPINCOUNT'))"


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in CHOICES_OF_USER}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )


def test_openmp_gets_the_bound() -> None:
    shown = run("import learned_opt, torch", **SHOWN).stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("this torch has another OpenMP than GNU's")
    assert re.search(rf"GOMP_SPINCOUNT = '{SPIN_COUNT}'", shown)


@pytest.mark.parametrize("name", CHOICES_OF_USER)
def test_the_user_wins(name: str) -> None:
    expected = "7" if name == "GOMP_SPINCOUNT" else "None"
    assert run(TELL, **{name: "7"}).stdout.strip() == expected


def test_processes_of_a_run_inherit_it() -> None:
    code = (
        "import learned_opt, subprocess, sys;"
        "subprocess.run([sys.executable, '-c', 'import torch'], check=True)"
    )
    shown = run(code, **SHOWN).stderr
    assert "GOMP_SPINCOUNT" not in shown or f"'{SPIN_COUNT}'" in shown


def test_nothing_is_set_that_nobody_would_hear() -> None:
    assert run("import sys; sys.modules['torch'] = None;" + TELL).stdout.strip() == "None"

"""Runs that end before they are done: what they say, and that the commands they print go on."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learned_opt.commands import cli, train
from tests.commands.test_cli import TINY

RUN = ["+task=mlp", *TINY, "meta_optimizer=sgdm", "benchmark.ledger=null"]


def test_max_time_ends_with_theta_and_a_way_on_and_without_a_comparison(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["trainer.max_steps=100000", "+trainer.max_time=00:00:00:01", "hydra.run.dir=run"]
    words += ["callbacks.validation.every=100000", "callbacks.diagnostics.every=100000"]
    monkeypatch.setattr(sys, "argv", ["learned_opt", *RUN, *words])
    train.main()

    shown = capsys.readouterr().out
    step = re.search(
        r"trainer.max_time ended the meta-training at outer step (\d+) of 100000", shown
    )
    assert step
    assert "its theta is not compared with baselines" in shown
    assert f"step_{step[1]}.ckpt" in {path.name for path in Path("run/checkpoints").iterdir()}
    assert Path("run/theta.safetensors").is_file()
    assert not Path("run/evaluation.json").exists()
    assert json.loads(Path("run/job.json").read_text())["state"] == "finished"

    again = next(line for line in shown.splitlines() if line.endswith("hydra.run.dir=run"))
    assert "max_time" not in again  # else it would end at once
    monkeypatch.setattr(train, "compare", lambda *_: None)
    typed = shlex.split(again)[3:]
    monkeypatch.setattr(sys, "argv", ["learned_opt", *typed, f"trainer.max_steps={step[1]}"])
    with pytest.raises(SystemExit):  # fewer steps than before: the words are those of this run
        train.main()
    error = capsys.readouterr().err
    assert "trainer.max_steps" in error
    assert error.count(" there,") == 1


def begin(folder: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "learned_opt", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 240
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_signals_in_tuning_and_evaluation_and_the_commands_that_go_on(tmp_path) -> None:
    long = [
        "horizon=300",
        "benchmark.num_lrs=20",
        "benchmark.num_chains=3",
        "benchmark.archive=tuned",
    ]
    words = [*RUN, *long]
    training = begin(tmp_path, *words, "hydra.run.dir=run")
    wait_for(tmp_path / "tuned", "*.parquet")  # baselines are being tuned
    training.send_signal(signal.SIGINT)
    _, error = training.communicate(timeout=120)
    assert training.returncode == 130
    assert "theta is trained and kept in run; no outer step is made twice." in error
    assert "Tuning runs that were done are kept in tuned and are not made again." in error
    assert json.loads((tmp_path / "run" / "job.json").read_text())["error"] == "stopped by SIGINT"

    again = begin(tmp_path, *shlex.split(error.splitlines()[-1])[3:])
    _, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert (tmp_path / "run" / "evaluation.json").is_file()

    words = ["evaluate", "+task=mlp", "compile=false", *long, "theta=run", "cells=cells"]
    evaluation = begin(tmp_path, *words, "benchmark.num_seeds=60", "benchmark.ledger=null")
    wait_for(tmp_path / "cells", "*.parquet")
    evaluation.send_signal(signal.SIGTERM)
    _, error = evaluation.communicate(timeout=120)
    assert evaluation.returncode == 143
    assert "Cells that were done are kept in cells and are not made again." in error
    command = shlex.split(error.splitlines()[-1])
    assert command[:4] == ["python", "-m", "learned_opt", "evaluate"]
    again = begin(tmp_path, *command[3:])
    _, error = again.communicate(timeout=300)
    assert again.returncode == 0, error

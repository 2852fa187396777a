"""Runs that are killed at any moment and started again end like those that were not."""

import csv
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from learned_opt.core import tree
from learned_opt.runtime.run_folder import RunFolder
from tests.helpers.forked_programs import ForkServer
from tests.helpers.fuzz_draws import SEED, trials
from tests.helpers.random_command_lines import TINY

pytestmark = pytest.mark.slow
COUNT = 22  # two of each estimator
STEPS = 6
CONFIGS = Path(__file__).parents[2] / "configs"
ESTIMATORS = sorted(file.stem for file in (CONFIGS / "estimator").glob("*.yaml"))
TASKS = ("mlp", "cnn", "rnn", "subleq")
OF_THE_MACHINE = ("inner_steps_per_second", "peak_memory")
GOING_ON = (
    "callbacks.diagnostics.every=3",
    "logger.csv.flush_every=3",
    "horizon=6",
    "callbacks.validation.every=3",
)


def command(source: random.Random, estimator: str) -> list[str]:
    """A short run with an estimator and a task."""
    words = [f"+task={source.choice(TASKS)}", f"estimator={estimator}", *TINY, *GOING_ON]
    words += ["meta_optimizer=deep_set", f"seed={source.randrange(1000)}"]
    words += [f"trainer.max_steps={STEPS}", "hydra.run.dir=run"]
    return words


def rows(run: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without times."""
    with RunFolder(run).metrics.open() as file:
        table = list(csv.DictReader(file))
    for row in table:
        assert None not in row, "a row is longer than the heading"
        for name in [name for name in row if name.startswith(OF_THE_MACHINE)]:
            del row[name]
    return table


def differences(killed: Path, straight: Path) -> list[str]:
    """In what two finished runs differ."""
    parts = []
    left, right = (load_file(RunFolder(run).theta) for run in (killed, straight))
    if tree.difference(list(left), list(right)) or not all(
        left[name].equal(right[name]) for name in left
    ):
        parts.append("theta")
    if rows(killed) != rows(straight):
        parts.append("metrics.csv")
    if json.loads(RunFolder(killed).job.read_text())["state"] != "finished":
        parts.append("job.json")
    if list(killed.rglob("*.partial")):
        parts.append("partial files")
    return parts


def test_killed_runs(server: ForkServer, tmp_path) -> None:
    counts: Counter[str] = Counter()
    sentences = []
    for number, source in trials(COUNT):
        words = command(source, ESTIMATORS[number % len(ESTIMATORS)])
        straight = tmp_path / f"straight{number}"
        killed = tmp_path / f"killed{number}"
        straight.mkdir()
        killed.mkdir()
        undisturbed = server.run(words, straight)
        assert undisturbed.code == 0, undisturbed

        after = source.uniform(0.1, undisturbed.seconds)
        first = server.run(words, killed, kill_after=after)
        second = server.run(words, killed)
        counts["killed" if first.cut else "had ended"] += 1
        broken = differences(killed / "run", straight / "run") if second.code == 0 else ["no end"]
        for ending in (first, second):
            if "Traceback" in ending.output + ending.errors:
                broken.append("a traceback")
        if broken:
            counts["faults"] += 1
            where = f"{number}: {' '.join(words)} after {after:.2f} s"
            sentences.append(f"{where}\n{broken}\n{second.errors[-1500:]}")
            print(sentences[-1], flush=True)
        else:
            shutil.rmtree(straight)
            shutil.rmtree(killed)

    print(f"seed {SEED}, kills of runs of {STEPS} outer steps: {dict(counts)}")
    assert not sentences, "\n\n".join(sentences)

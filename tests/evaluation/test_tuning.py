"""The archive of tuning runs: reused, extended, told apart, and the same after a kill."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from learned_opt.evaluation.tuning import log_grid, tune
from learned_opt.evaluation.tuning_archive import describe, fingerprint
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.references import make_sgdm
from learned_opt.optimizers.hand.sgd import Momentum
from learned_opt.optimizers.schedule import Cosine
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.supervised import Classification
from tests.cases import images, spec_of

GRID = log_grid(1e-2, 1e2, 9)


class Slow(Quadratic):
    """Waits before every evaluation, so that there is time to kill it."""

    pause = 0.0

    def evaluate(self, params, task):
        time.sleep(self.pause)
        return super().evaluate(params, task)


def inner(family=None, constructor=make_sgdm) -> Unroll:
    family = family or Slow(dim=3)
    return Unroll(family, constructor(spec_of(family)), compile=False)


def tuned(folder: Path | None, grid=GRID, num_seeds=2):
    return tune(inner(), make_sgdm, grid, num_seeds, horizon=5, num_chains=4, archive=folder)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_runs_of_an_archive_are_not_run_again(tmp_path, monkeypatch) -> None:
    first = tuned(tmp_path)
    assert first.num_reused == 0
    assert all((first.scores[k] == v).all() for k, v in tuned(None).scores.items())
    narrow = tuned(tmp_path, log_grid(1e-2, 1.0, 5), 1)
    assert narrow.num_reused == 5
    assert (narrow.learning_rates, len(narrow.scores["mean_loss"])) == (GRID[:5], 5)
    assert tuned(tmp_path, num_seeds=3).num_reused == 18
    assert len(pd.read_parquet(only_file(tmp_path))) == 27
    monkeypatch.setattr("learned_opt.evaluation.tuning.run_seeds", None)  # would fail
    again = tuned(tmp_path)
    assert again.num_reused == 18
    assert all((first.scores[k] == v).all() for k, v in again.scores.items())


def test_the_file_says_what_it_holds(tmp_path) -> None:
    tuned(tmp_path)
    path = only_file(tmp_path)
    assert path.name.startswith("quadratic-")
    frame = pd.read_parquet(path)
    assert list(frame) == ["lr", "seed", "mean_loss", "final_loss"]
    assert frame.attrs == fingerprint(inner(), make_sgdm, 5)
    assert frame.attrs["optimizer"] == "learned_opt.optimizers.hand.references.make_sgdm"


def test_other_facts_are_another_archive() -> None:
    def network(hidden: int) -> Unroll:
        return inner(
            Classification("noise", partial(MLP, hidden_sizes=(hidden,)), images(), batch_size=7)
        )

    cosine = partial(HandDesigned, rule=Momentum, schedule=Cosine(5))
    facts = [
        fingerprint(inner(), make_sgdm, 5),
        fingerprint(inner(), make_sgdm, 6),
        fingerprint(inner(), partial(make_sgdm, gamma=0.5), 5),
        fingerprint(inner(Slow(dim=3, noise=0.1)), make_sgdm, 5),
        fingerprint(inner(Slow(dim=3, random_init=False)), make_sgdm, 5),
        fingerprint(network(4), make_sgdm, 5),
        fingerprint(network(5), make_sgdm, 5),
        fingerprint(inner(), cosine, 5),
        fingerprint(inner(), partial(cosine, schedule=Cosine(6)), 5),
    ]
    assert len({str(each) for each in facts}) == len(facts)
    assert facts[0] == fingerprint(inner(), make_sgdm, 5)
    slow, fast = partial(make_sgdm, lr=3.0), partial(make_sgdm, lr=4.0)
    assert describe(slow) == describe(fast)  # the tuner sets it
    with pytest.raises(ValueError, match="needs an optimizer that it can name, got <function"):
        fingerprint(inner(), lambda spec, lr: make_sgdm(spec, lr=2 * lr), 5)


def test_killed_and_resumed_is_the_same_archive(tmp_path) -> None:
    """SIGKILL in the middle; what was archived by then is kept bit for bit, and the end is that of one go."""
    program = f"from tests.test_tuning import Path, Slow, tuned; Slow.pause = 0.3; tuned(Path({str(tmp_path)!r}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("*.parquet"))
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (path,) = tmp_path.glob("*.parquet")
    half = len(pd.read_parquet(path))
    assert 0 < half < 18
    assert tuned(tmp_path).num_reused == half
    whole = tmp_path / "whole"
    tuned(whole)
    pd.testing.assert_frame_equal(
        pd.read_parquet(path), pd.read_parquet(only_file(whole)), check_exact=True
    )

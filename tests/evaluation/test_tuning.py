"""The archive of tuning runs: reused, extended, told apart, and the same after a kill."""

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from learned_opt.evaluation.tuning import log_grid, tune
from learned_opt.evaluation.tuning_archive import Archive, file_name
from learned_opt.evaluation.tuning_facts import describe, fingerprint
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.adafactor import Adafactor
from learned_opt.optimizers.hand.adagrad import Adagrad, RMSProp
from learned_opt.optimizers.hand.adam import Adam, NAdam, RAdam
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.lion import Lion
from learned_opt.optimizers.hand.matrix import Muon, Shampoo
from learned_opt.optimizers.hand.references import make_sgdm
from learned_opt.optimizers.hand.schedule_free import ScheduleFreeAdamW
from learned_opt.optimizers.hand.sgd import SGD, Momentum
from learned_opt.optimizers.hand.soap import SOAP
from learned_opt.optimizers.hand.torch_optim import TorchOptim
from learned_opt.optimizers.hand.trust_ratio import TrustRatio
from learned_opt.optimizers.schedule import Cosine
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.supervised import Classification
from tests.cases import images, spec_of

GRID = log_grid(1e-2, 1e2, 9)

# constructor, and the file of its runs on Quadratic(dim=3) at horizon 5, as version 0.1 named it
ARCHIVED_FILES = {
    "quadratic-5c0b1abc31cb058e.parquet": partial(
        HandDesigned, rule=partial(Momentum, gamma=0.9), lr=1.0
    ),
    "quadratic-dd102377904f0404.parquet": partial(
        HandDesigned,
        rule=partial(Muon, vectors=partial(Adam, beta1=0.9)),
        schedule=Cosine(5),
        lr=0.01,
    ),
}

# name in the archives of version 0.1 -> class
ARCHIVED_NAMES = {
    "hand.HandDesigned": HandDesigned,
    "rules.adafactor.Adafactor": Adafactor,
    "rules.adagrad.Adagrad": Adagrad,
    "rules.adagrad.RMSProp": RMSProp,
    "rules.adam.Adam": Adam,
    "rules.adam.NAdam": NAdam,
    "rules.adam.RAdam": RAdam,
    "rules.lion.Lion": Lion,
    "rules.matrix.Muon": Muon,
    "rules.matrix.Shampoo": Shampoo,
    "rules.schedule_free.ScheduleFreeAdamW": ScheduleFreeAdamW,
    "rules.sgd.Momentum": Momentum,
    "rules.sgd.SGD": SGD,
    "rules.soap.SOAP": SOAP,
    "rules.torch_optim.TorchOptim": TorchOptim,
    "rules.trust_ratio.TrustRatio": TrustRatio,
    "schedule.Cosine": Cosine,
}


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


def same_scores(left, right) -> bool:
    return all(torch.equal(left.scores[name], values) for name, values in right.scores.items())


def test_runs_of_an_archive_are_not_run_again(tmp_path, monkeypatch) -> None:
    first = tuned(tmp_path)
    assert first.num_reused == 0
    assert same_scores(first, tuned(None))

    narrow = tuned(tmp_path, log_grid(1e-2, 1.0, 5), 1)
    assert narrow.num_reused == 5
    assert (narrow.learning_rates, len(narrow.scores["mean_loss"])) == (GRID[:5], 5)
    assert tuned(tmp_path, num_seeds=3).num_reused == 18
    assert len(pd.read_parquet(only_file(tmp_path))) == 27

    monkeypatch.setattr("learned_opt.evaluation.tuning.run_seeds", None)  # would fail
    again = tuned(tmp_path)
    assert again.num_reused == 18
    assert same_scores(first, again)


def test_the_file_says_what_it_holds(tmp_path) -> None:
    tuned(tmp_path)
    path = only_file(tmp_path)
    assert path.name.startswith("quadratic-")
    frame = pd.read_parquet(path)
    assert list(frame) == ["lr", "seed", "mean_loss", "final_loss"]
    assert frame.attrs == fingerprint(inner(), make_sgdm, 5)
    assert frame.attrs["optimizer"] == "learned_opt.optimizers.hand.references.make_sgdm"


@pytest.mark.parametrize("name", ARCHIVED_FILES)
def test_archives_of_earlier_versions_are_found(name) -> None:
    constructor = ARCHIVED_FILES[name]
    unroll = inner(Quadratic(dim=3), constructor)
    assert file_name(fingerprint(unroll, constructor, 5)) == name


@pytest.mark.parametrize("name", ARCHIVED_NAMES)
def test_moved_classes_keep_their_archived_names(name) -> None:
    assert describe(ARCHIVED_NAMES[name]) == f"learned_opt.optimizers.{name}"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def without_scores(path: Path) -> None:
    pd.read_parquet(path).drop(columns="mean_loss").to_parquet(path)


def with_text(path: Path) -> None:
    pd.read_parquet(path).astype({"lr": str}).to_parquet(path)


def with_nan(path: Path) -> None:
    pd.read_parquet(path).assign(lr=float("nan")).to_parquet(path)


def with_run_twice(path: Path) -> None:
    rows = pd.read_parquet(path)
    pd.concat([rows, rows[:1]]).to_parquet(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "Parquet"),
        (lambda path: path.write_bytes(b""), "is 0 bytes"),
        (without_scores, "it has no column mean_loss"),
        (with_text, "its column lr holds no numbers"),
        (with_nan, "its learning rates must be finite"),
        (with_run_twice, "it has a run twice"),
    ],
)
def test_a_damaged_archive_is_set_aside_and_its_runs_are_made_again(
    tmp_path, caplog, damage, reason
) -> None:
    first = tuned(tmp_path)
    path = only_file(tmp_path)
    damage(path)
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        again = tuned(tmp_path)
    assert again.num_reused == 0
    assert same_scores(again, first)
    assert len(pd.read_parquet(path)) == 18
    aside = path.with_name(path.name + ".damaged")
    assert aside.read_bytes() == content  # nothing is lost
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"the tuning runs in {path} cannot be used (" in message
    assert reason in message
    assert aside.name in message


def test_other_facts_are_another_archive() -> None:
    def network(hidden: int) -> Unroll:
        mlp = partial(MLP, hidden_sizes=(hidden,))
        return inner(Classification("noise", mlp, images(), batch_size=7))

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

    # the tuner sets the learning rate
    assert describe(partial(make_sgdm, lr=3.0)) == describe(partial(make_sgdm, lr=4.0))
    with pytest.raises(ValueError, match="needs an optimizer that it can name, got <function"):
        fingerprint(inner(), lambda spec, lr: make_sgdm(spec, lr=2 * lr), 5)


def test_an_error_while_writing_leaves_the_runs_that_were_there(tmp_path, monkeypatch) -> None:
    tuned(tmp_path)
    content = only_file(tmp_path).read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        tuned(tmp_path, num_seeds=3)
    assert only_file(tmp_path).read_bytes() == content


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive = Archive(None, {})
    archive.add(pd.DataFrame({"lr": [0.1], "seed": [0], "mean_loss": [1.0], "final_loss": [2.0]}))
    assert archive.missing([(0.1, 0), (0.1, 1)]) == [(0.1, 1)]
    assert archive.scores([0.1], 1)["final_loss"].tolist() == [2.0]
    assert list(tmp_path.iterdir()) == []


def test_killed_and_resumed_is_the_same_archive(tmp_path) -> None:
    """SIGKILL in the middle.

    What was archived by then is kept bit for bit, and the end is that of one go.
    """
    program = (
        "from tests.evaluation.test_tuning import Path, Slow, tuned; "
        f"Slow.pause = 0.3; tuned(Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list(tmp_path.glob("*.parquet")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    (path,) = tmp_path.glob("*.parquet")
    num_archived = len(pd.read_parquet(path))
    assert 0 < num_archived < 18
    assert tuned(tmp_path).num_reused == num_archived

    whole = tmp_path / "whole"
    tuned(whole)
    resumed = pd.read_parquet(path)
    pd.testing.assert_frame_equal(resumed, pd.read_parquet(only_file(whole)), check_exact=True)

"""The W&B logger, offline: whole runs read back from their .wandb files by wandb's own reader."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from learned_opt.commands import evaluate, train
from learned_opt.evaluation.behaviour import QUANTITIES
from learned_opt.evaluation.results import COLUMNS, Results
from learned_opt.reporting.wandb_upload import MAX_ROWS, heldout_means, offline_parts, thinned
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.wandb import start_runs, wandb_logger
from tests.helpers.made_folders import only_folder_of

TINY = [
    "+task=mlp",
    "meta_optimizer=sgdm",
    "compile=false",
    "horizon=4",
    "estimator.unroll_length=2",
    "estimator.num_tasks=2",
    "trainer.max_steps=3",
    "callbacks.diagnostics.every=2",
    "callbacks.validation.every=3",
    "benchmark.num_seeds=2",
    "benchmark.num_chains=2",
    "benchmark.num_lrs=2",
    "benchmark.lowest_lr=1.0",
    "~benchmark.baselines.adam",
    "benchmark.reference=sgdm",
]


def read_back(folder: Path) -> dict[str, Any]:
    """The records of the only W&B file of a run folder."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    of_kind: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "artifact": []}
    for record in records:
        kind = record["type"]
        content = record[kind]
        if kind in ("config", "summary"):
            of_kind[kind] |= content.get("update", {})
        elif kind in ("history", "artifact"):
            of_kind[kind].append(content.get("item", content))
        elif kind in ("run", "exit"):
            of_kind[kind] = content
    return of_kind


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder to run in, and a home without an account."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("WANDB_SILENT", "true")
        yield folder, patch


def call(user, main, *words: str) -> None:
    user[1].setattr(sys, "argv", ["learned_opt", *words])
    main()


@pytest.fixture(scope="module")
def sweep(user) -> Path:
    """A sweep of two runs."""
    call(user, train.main, "-m", *TINY, "logger=wandb", "seed=3,4")
    return only_folder_of(user[0] / "runs" / "sweeps")


@pytest.fixture(scope="module")
def first(sweep) -> dict[str, Any]:
    return read_back(sweep / "0")


def test_a_run_says_what_it_is(first) -> None:
    run = first["run"]
    assert (run["project"], run["job_type"], run["display_name"]) == (
        "learned_opt",
        "meta_train",
        "mlp-sgdm-3",
    )
    assert run["tags"] == ["mlp", "pes", "sgdm"]
    assert first["config"]["estimator"]["num_tasks"] == 2
    assert first["config"]["task"]["_target_"] == "tasks.supervised.Classification"
    assert first["config"]["optimizer_name"] == "sgdm"
    assert first["config"]["provenance"]["device"] == "cpu"
    assert first["exit"]["exit_code"] == 0


def test_runs_of_a_sweep_share_a_group_and_nothing_else(sweep, first) -> None:
    second = read_back(sweep / "1")
    assert first["run"]["run_group"] == second["run"]["run_group"] == sweep.name
    ids = [(sweep / job / "wandb_id.txt").read_text().strip() for job in ("0", "1")]
    assert [first["run"]["run_id"], second["run"]["run_id"]] == ids
    assert ids[0] != ids[1]
    assert (sweep / "0" / "metrics.csv").stat().st_size > 0  # csv is always there


def test_every_figure_is_in_the_history(first) -> None:
    each = [row for row in first["history"] if "meta_loss/train" in row]
    assert [row["trainer/global_step"] for row in each] == [0, 1, 2]
    for name in ("meta_grad_norm", "nonfinite_pairs", "restarts", "peak_memory/process"):
        assert all(name in row for row in each), name
    assert all("meta_grad_snr" in row and "inner_steps_per_second" in row for row in each[1:])
    assert [row["trainer/global_step"] for row in first["history"] if "meta_loss/valid" in row] == [
        2
    ]
    dear = [row for row in first["history"] if "effective_lr/layers.0.weight" in row]
    assert [row["trainer/global_step"] for row in dear] == [2, 3]
    assert all(f"{name}/layers.1.weight" in row for row in dear for name in QUANTITIES)
    assert dear[0]["theta/log_lr._type"] == "histogram"


def test_the_end_has_tables_pictures_and_held_out_figures(first) -> None:
    end = first["history"][-1]
    for table in ("evaluation", "curves", "diagnostics"):
        assert end[f"{table}._type"] == "table-file", table
    for picture in ("curves", "behaviour"):
        assert end[f"pictures/{picture}._type"] == "image-file", picture
    assert end["curves.nrows"] == 2 * 2 * 4  # optimizers, seeds, steps
    for figure in ("mean_loss", "final_loss", "accuracy"):
        assert f"{figure}/heldout/mlp" in first["summary"]
        assert f"{figure}/heldout/mlp/sgdm" in first["summary"]


def test_the_curves_are_a_table_of_task_seed_optimizer_step_and_loss(sweep) -> None:
    (path,) = (sweep / "0").glob("wandb/offline-run-*/files/media/table/curves_*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["task", "seed", "optimizer", "step", "loss"]
    rows = json.loads((sweep / "0" / "evaluation.json").read_text())["rows"]
    losses = []
    for _, seed, name, _, loss in table["data"]:
        if (seed, name) == (1, "sgdm-learned"):
            losses.append(loss)
    assert sum(losses) / 4 == pytest.approx(rows[1]["mean_loss"], rel=1e-5)


def test_theta_is_an_artifact_with_its_evaluation(sweep, first) -> None:
    (theta,) = [record for record in first["artifact"] if record["type"] == "meta-optimizer"]
    assert theta["name"] == "theta-mlp-sgdm-3"
    assert theta["aliases"] == ["latest"]
    contents = theta["manifest"]["contents"]
    files = {"theta.safetensors", "theta.json", "evaluation.json"}
    assert {entry["path"] for entry in contents} == files | {"evaluation.table.json"}
    staged = {
        entry["path"]: Path(entry["local_path"]) for entry in contents if entry["path"] in files
    }
    assert all(sweep / "0" in path.parents and path.is_file() for path in staged.values())
    assert (
        staged["theta.safetensors"].read_bytes() == (sweep / "0" / "theta.safetensors").read_bytes()
    )
    assert json.loads(theta["metadata"])["evaluation"]["mlp"][0]["optimizer"] == "sgdm-learned"


def test_a_resumed_run_goes_on_under_its_id_and_an_evaluation_is_a_test(
    user, sweep, capsys
) -> None:
    known = (sweep / "0" / "wandb_id.txt").read_text()
    more = [*TINY, "logger=wandb", f"checkpoint={sweep}/0", "trainer.max_steps=4"]
    call(user, train.main, *more)
    resumed = only_folder_of(user[0] / "runs" / "mlp")
    assert (resumed / "wandb_id.txt").read_text() == known
    said = capsys.readouterr().out
    upload = re.search(r"upload to W&B with: wandb sync (.+)\n", said)
    assert upload
    parts = [Path(word).resolve() for word in shlex.split(upload[1])]
    assert [part.parents[1] for part in parts] == [(sweep / "0").resolve(), resumed.resolve()]
    assert all(list(part.glob(f"run-{known.strip()}.wandb")) for part in parts)
    command = [str(Path(sys.executable).parent / "wandb"), "sync", "--dry-run", *map(str, parts)]
    dry = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Would sync 2 run(s)" in dry.stdout + dry.stderr
    record = read_back(resumed)
    assert record["run"]["run_id"] == known.strip()
    assert "run_group" not in record["run"]
    assert [
        row["trainer/global_step"] for row in record["history"] if "meta_loss/train" in row
    ] == [3]
    words = [*TINY[:1], *TINY[2:], "logger=wandb", f"theta={resumed}/theta.safetensors"]
    call(user, evaluate.main, *words)
    record = read_back(only_folder_of(user[0] / "runs" / "mlp-evaluate"))
    assert (record["run"]["job_type"], record["run"]["tags"][-1]) == ("meta_test", "sgdm")
    assert "mean_loss/heldout/mlp" in record["summary"]
    assert not [r for r in record["artifact"] if r["type"] == "meta-optimizer"]


def test_csv_alone_needs_no_wandb(user, tmp_path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)  # an import of it fails
        call(user, train.main, *TINY, f"hydra.run.dir={tmp_path}/run")
    assert (tmp_path / "run" / "metrics.csv").stat().st_size > 0
    assert (tmp_path / "run" / "curves.parquet").stat().st_size > 0
    assert not (tmp_path / "run" / "wandb").exists()


def test_wandb_mode_is_honoured_and_checked(user, tmp_path, monkeypatch) -> None:
    settings = {
        "project": "p",
        "name": "n",
        "job_type": "baseline",
        "tags": [],
        "group": "mine",
        "sweep_dir": "s",
    }
    for mode, offline in (("disabled", False), ("offline", True)):
        monkeypatch.setenv("WANDB_MODE", mode)
        run = wandb_logger(str(tmp_path / mode), checkpoint=None, **settings).experiment
        assert (run.settings.mode, run.offline) == (mode, offline)
        run.finish()
    assert read_back(tmp_path / "offline")["run"]["run_group"] == "mine"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(
        ValueError,
        match=r"WANDB_MODE must be one of online, offline, shared, disabled, got 'sometim",
    ):
        wandb_logger(str(tmp_path), checkpoint=None, **settings)
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(
        ConnectionError, match=r"W&B does not start: No API key .*; WANDB_MODE=offline needs no acc"
    ):
        start_runs([wandb_logger(str(tmp_path), checkpoint=None, **settings)])


def test_the_id_of_an_agent_goes_before_all_others(user, tmp_path, monkeypatch, caplog) -> None:
    settings = {"project": "p", "name": "n", "job_type": "baseline", "tags": [], "group": None}
    settings |= {"sweep_dir": str(tmp_path / "s")}
    run = tmp_path / "run"
    file = run / "wandb_id.txt"
    logger = wandb_logger(str(run), checkpoint=None, **settings)
    drawn = file.read_text().strip()
    assert logger._wandb_init["id"] == drawn
    assert not caplog.records

    monkeypatch.setenv("WANDB_RUN_ID", "agent1")
    logger = wandb_logger(str(run), checkpoint=None, **settings)
    assert logger._wandb_init["id"] == "agent1"
    assert file.read_text() == "agent1\n"
    assert caplog.messages == [
        f"WANDB_RUN_ID=agent1 wins over {drawn}, under which W&B has known this run; its earlier "
        "part stays there"
    ]
    wandb_logger(str(run), checkpoint=None, **settings)
    assert len(caplog.messages) == 1  # the run is known under it

    with pytest.raises(ValueError, match=r"WANDB_RUN_ID is the id of one run, .* 'agent1'\.$"):
        wandb_logger(str(tmp_path / "s" / "0"), checkpoint=None, **settings)
    monkeypatch.delenv("WANDB_RUN_ID")
    wandb_logger(str(run), checkpoint=None, **settings)
    assert file.read_text() == "agent1\n"


def test_all_parts_of_a_run_are_named_in_their_order(user, tmp_path) -> None:
    settings = {"project": "p", "name": "n", "job_type": "baseline", "tags": [], "group": None}
    settings |= {"sweep_dir": str(tmp_path / "s")}
    parts = []
    before = None
    for name, time in (("c", 1), ("b", 2), ("b", 4), ("a", 3)):
        folder = RunFolder(tmp_path / name)
        wandb_logger(str(folder.path), checkpoint=before, **settings)
        run_id = folder.wandb_id.read_text().strip()
        part = folder.wandb / f"offline-run-2026010{time}_000000-{run_id}"
        part.mkdir(parents=True)
        (folder.wandb / "offline-run-20260101_000000-another").mkdir(exist_ok=True)
        parts.append(part)
        before = str(folder.path)
    assert offline_parts(folder, run_id) == parts


def test_figures_of_a_diverged_seed_or_of_no_accuracy_are_left_out() -> None:
    rows = [
        ("a", "unf", 1.0, 2.0),
        ("a", "unf", 3.0, math.inf),
        ("a", "adam", 5.0, 6.0),
        ("b", "unf", 7.0, 8.0),
    ]
    table = pd.DataFrame(rows, columns=["task", "optimizer", "mean_loss", "final_loss"])
    frame = table.reindex(columns=COLUMNS).assign(axis="", horizon=200, accuracy=math.nan)
    assert heldout_means(Results(learned=["unf"], frames=[frame])) == {
        "mean_loss/heldout/a": 2.0,
        "mean_loss/heldout/a/adam": 5.0,
        "final_loss/heldout/a/adam": 6.0,
        "mean_loss/heldout/b": 7.0,
        "final_loss/heldout/b": 8.0,
    }
    assert heldout_means(Results()) == {}


def test_large_tables_are_thinned_evenly_and_keep_their_end() -> None:
    table = pd.DataFrame({"step": np.repeat(np.arange(500), 64), "loss": 0.0})
    kept = thinned(table, "step")
    assert len(kept) <= MAX_ROWS
    assert sorted(kept["step"].unique())[-3:] == [491, 495, 499]
    assert len(thinned(table[:640], "step")) == 640


@pytest.mark.slow
def test_a_sweep_of_four_is_one_group(user) -> None:
    call(
        user,
        train.main,
        "-m",
        *TINY,
        "logger=wandb",
        "meta_optimizer=sgdm,adam",
        "seed=5,6",
        "hydra.sweep.dir=four",
    )
    runs = [read_back(Path("four") / str(job))["run"] for job in range(4)]
    assert {run["run_group"] for run in runs} == {"four"}
    assert len({run["run_id"] for run in runs}) == 4
    assert sorted(run["display_name"] for run in runs) == [
        "mlp-adam-5",
        "mlp-adam-6",
        "mlp-sgdm-5",
        "mlp-sgdm-6",
    ]

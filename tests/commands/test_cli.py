"""Runs as a person types them; error paths by the same functions."""

import csv
import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from learned_opt.commands import cli, evaluate, train
from learned_opt.compose import config_files
from learned_opt.evaluation.results import read_evaluation
from learned_opt.reporting import screens
from learned_opt.runtime.run_folder import RunFolder
from tests.helpers.commands import run_here
from tests.helpers.made_folders import folders_of, only_folder_of

TASKS = ", ".join(config_files.options("task"))


TINY = [
    "compile=false",
    "horizon=6",
    "estimator.unroll_length=3",
    "estimator.num_tasks=2",
    "trainer.max_steps=4",
    "callbacks.validation.every=2",
    "benchmark.num_seeds=3",
    "benchmark.num_chains=4",
    "benchmark.num_lrs=3",
]


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """What a person types behind ``python -m learned_opt``."""
    command = [sys.executable, "-W", "error::UserWarning:learned_opt", "-m", "learned_opt", *words]
    environment = {
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder in which one tiny run has been made; the run itself is ``runs/mlp/*``."""
    folder = tmp_path_factory.mktemp("user")
    check(run_here(folder, "+task=mlp", *TINY))
    return folder


def check(result: subprocess.CompletedProcess) -> None:
    """A run that went well."""
    assert result.returncode == 0, result.stderr
    assert "held-out seeds" in result.stdout
    assert "Warning" not in result.stderr + result.stdout


def run_folder(folder: Path) -> Path:
    """Of the first run; others go on from it."""
    return folders_of(folder / "runs" / "mlp")[0]


def mean_losses(folder: Path) -> dict[tuple[str, int], float]:
    """Optimizer and seed -> mean loss, of an evaluation."""
    frame = read_evaluation(RunFolder(folder).evaluation).frame
    keys = zip(frame["optimizer"], frame["seed"], strict=True)
    return dict(zip(keys, frame["mean_loss"], strict=True))


def test_a_run_writes_what_the_readme_says(finished) -> None:
    run = run_folder(finished)
    files = [
        "theta.safetensors",
        "theta.json",
        "metrics.csv",
        "evaluation.json",
        "report.md",
        "curves.png",
    ]
    for name in [
        *files,
        ".hydra/config.yaml",
        "checkpoints/step_4.ckpt",
        "checkpoints/step_4.ckpt.sha256",
    ]:
        assert (run / name).stat().st_size > 0, name
    assert {name for name, _ in mean_losses(run)} >= {"unf", "sgdm", "adam"}
    with (run / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["meta_loss/train"]]
    assert len(logged) == 4
    described = json.loads((run / "theta.json").read_text())
    assert described["tasks"]["mlp"]["data"] == "digits"
    assert described["evaluation"]["mlp"][0]["optimizer"] == "unf"
    assert "python -m learned_opt +task=mlp" in described["provenance"]["command"]
    assert described["provenance"]["meta_training"].endswith(" minutes")


@pytest.mark.slow  # ``test_outside`` has a training in a process of its own by default
def test_a_run_in_a_process_of_its_own(tmp_path) -> None:
    check(shell(tmp_path, "+task=mlp", *TINY))
    run = only_folder_of(tmp_path / "runs" / "mlp")
    assert (run / "curves.png").stat().st_size > 10_000


def test_a_run_leaves_a_page_of_itself(finished) -> None:
    page = (run_folder(finished) / "report.html").read_text()
    assert "<title>unf on mlp</title>" in page
    assert "What is missing" not in page
    again = run_here(finished, "report", str(run_folder(finished)), "--out=again.html")
    assert again.stdout == "written: again.html\n", again.stderr
    assert (finished / "again.html").read_text() == page


def test_theta_can_be_evaluated_and_training_resumed(finished) -> None:
    run = run_folder(finished)
    again = run_here(finished, "evaluate", "+task=mlp", f"theta={run}/theta.safetensors", *TINY)
    assert again.returncode == 0, again.stderr
    evaluated = only_folder_of(finished / "runs" / "mlp-evaluate")
    assert mean_losses(evaluated) == pytest.approx(mean_losses(run))
    checkpoint = f"checkpoint={run}/checkpoints/step_4.ckpt"
    words = [*TINY, "trainer.max_steps=6", checkpoint, "benchmark=none"]
    more = run_here(finished, "+task=mlp", *words)
    assert more.returncode == 0, more.stderr
    assert "outer step 5/6" in more.stderr


def test_training_starts_from_a_trained_theta(finished) -> None:
    start = f"theta={run_folder(finished)}"
    still = [
        "outer_optimizer.optimizer.lr=0",
        "outer_optimizer.schedule.eta_min=0",
        "hydra.run.dir=runs/further",
    ]
    more = run_here(finished, "+task=mlp", *TINY, start, *still, "benchmark=none")
    assert more.returncode == 0, more.stderr
    assert f"going on from {run_folder(finished)}" in more.stdout
    before, after = (
        load_file(folder / "theta.safetensors")
        for folder in (run_folder(finished), finished / "runs/further")
    )
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    described = json.loads((finished / "runs/further/theta.json").read_text())
    assert described["optimizer_name"] == "unf"
    assert described["started_from"]["name"] == str(run_folder(finished))
    assert described["started_from"]["tasks"]["mlp"]["data"] == "digits"


@pytest.mark.slow
def test_training_starts_from_a_packaged_theta_on_any_network(tmp_path) -> None:
    result = shell(
        tmp_path,
        "+task=mlp",
        *TINY,
        "network.hidden_sizes=[6,5]",
        "theta=unf-transfer",
        "hydra.run.dir=run",
    )
    assert result.returncode == 0, result.stderr
    config = OmegaConf.load(tmp_path / "run/.hydra/config.yaml")
    assert config.meta_optimizer.nominal.orthogonal is True
    assert json.loads((tmp_path / "run/theta.json").read_text())["optimizer_name"] == "unf_tied"


@pytest.mark.slow
def test_multirun_gives_one_folder_per_job(tmp_path) -> None:
    result = shell(tmp_path, "-m", "+task=mlp", "meta_optimizer=sgdm,adam", *TINY)
    assert result.returncode == 0, result.stderr
    sweep = only_folder_of(tmp_path / "runs" / "sweeps")
    names = [
        json.loads((sweep / job / "theta.json").read_text())["optimizer_name"] for job in ("0", "1")
    ]
    assert names == ["sgdm", "adam"]
    # the tuned one beside it
    assert {name for name, _ in mean_losses(sweep / "0")} >= {"sgdm-learned", "sgdm", "adam"}


def test_no_task_is_answered_at_once(tmp_path) -> None:
    start = time.perf_counter()
    result = shell(tmp_path)
    assert time.perf_counter() - start < 2  # under a second on a quiet machine
    assert result.returncode == 2
    assert (
        result.stderr == "learned_opt: no task given; add +task=NAME, where NAME is one of: "
        f"{TASKS}.\n"
    )
    assert not list(tmp_path.iterdir())


def test_choices_hold_those_of_the_user(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "mine/network").mkdir(parents=True)
    (tmp_path / "mine/network/rnn_of_mine.yaml").write_text("_target_: x.y")
    words = ["+task=mlp", "network=rnn_of_min", f"--config-dir={tmp_path}/mine"]
    error = refused(monkeypatch, capsys, tmp_path, train.main, *words)
    for name in config_files.options("network"):
        assert name in error
    assert "Did you mean 'rnn_of_mine'?" in error


def test_a_folder_that_cannot_be_written_is_one_sentence(monkeypatch, capsys) -> None:
    def fails() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/metrics.csv")

    with pytest.raises(SystemExit) as stop:
        cli.answer(fails)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "learned_opt: /locked/metrics.csv: permission denied.\n"


def refused(monkeypatch, capsys, tmp_path, main, *arguments: str) -> str:
    """Run an entry point that must refuse its arguments; returns its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["learned_opt", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.startswith("learned_opt: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+task=cnn"], "is of another network, its parameters differ: missing: convs.0.weight"),
        (["+task=mlp", "network.hidden_sizes=[8,8]"], "missing: layers.2.weight"),
    ],
)
def test_theta_of_another_architecture_is_refused(
    monkeypatch, capsys, tmp_path, finished, overrides, message
) -> None:
    theta = f"theta={run_folder(finished)}/theta.safetensors"
    assert message in refused(monkeypatch, capsys, tmp_path, evaluate.main, theta, *overrides)


def test_checkpoint_of_another_architecture_is_refused(
    monkeypatch, capsys, tmp_path, finished
) -> None:
    checkpoint = f"checkpoint={run_folder(finished)}"
    error = refused(
        monkeypatch,
        capsys,
        tmp_path,
        train.main,
        "+task=mlp",
        "meta_optimizer=deep_set",
        checkpoint,
    )
    assert "is of another architecture: missing: function.layers.3.weight" in error


def test_missing_checkpoint_of_evaluate(monkeypatch, capsys, tmp_path) -> None:
    assert "theta=" in refused(monkeypatch, capsys, tmp_path, evaluate.main, "+task=mlp")
    error = refused(
        monkeypatch, capsys, tmp_path, evaluate.main, "+task=mlp", "theta=none.safetensors"
    )
    assert "nothing is called 'none.safetensors': it must be " in error


def test_the_commands_after_ctrl_c_are_such_as_run() -> None:
    words = ["+task=mlp", "theta=unf-transfer", "network.hidden_sizes=[8, 8]", "hydra.run.dir=old"]
    _, again, evaluation = screens.interrupted(words, Path("run")).splitlines()
    assert again.endswith(
        "learned_opt +task=mlp theta=unf-transfer 'network.hidden_sizes=[8, 8]' hydra.run.dir=run"
    )
    assert evaluation.endswith(
        "evaluate +task=mlp 'network.hidden_sizes=[8, 8]' theta=run/theta.safetensors"
    )


def test_a_theta_to_start_from_that_cannot_be(monkeypatch, capsys, tmp_path) -> None:
    assert "nothing is called 'nope'" in refused(
        monkeypatch, capsys, tmp_path, train.main, "+task=mlp", "theta=nope"
    )
    words = ["+task=mlp", "theta=unf-transfer", "meta_optimizer=deep_set"]
    error = refused(monkeypatch, capsys, tmp_path, train.main, *words)
    assert (
        "theta brings its own meta-optimizer, so that meta_optimizer=deep_set has no effect"
        in error
    )
    error = refused(monkeypatch, capsys, tmp_path, train.main, "+task=cnn", "theta=unf-mlp-fashion")
    assert "is of another network, its parameters differ" in error

"""TensorBoard and MLflow beside metrics.csv: a run that was killed, read back from both stores."""

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from learned_opt.commands import train
from learned_opt.core import optional_packages
from learned_opt.evaluation.results import read_evaluation
from learned_opt.reporting.wandb_upload import heldout_means
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.mlflow import MLflow, start_runs
from learned_opt.training.tensorboard import TensorBoard

TINY = [
    "+task=mlp",
    "meta_optimizer=sgdm",
    "compile=false",
    "horizon=4",
    "estimator.unroll_length=2",
    "estimator.num_tasks=2",
    "trainer.max_steps=4",
    "callbacks.checkpoints.every=2",
    "callbacks.validation.every=4",
    "benchmark.num_seeds=2",
    "benchmark.num_chains=2",
    "benchmark.num_lrs=2",
    "benchmark.lowest_lr=1.0",
    "~benchmark.baselines.adam",
    "benchmark.reference=sgdm",
    "logger=[tensorboard,mlflow]",
    "logger.mlflow.experiment_name=trackers",
]
STEPS = [0, 1, 2, 3]

needs_both = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorboard", "mlflow")),
    reason="tensorboard or mlflow is not installed: the two loggers were NOT tested",
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A run that went on after a kill behind step 4, for which it had a checkpoint of step 2."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = RunFolder(folder / "run")
        words = [*TINY, f"hydra.run.dir={run.path}"]
        patch.setattr(sys, "argv", ["learned_opt", *words])
        with patch.context() as without_comparison:
            without_comparison.setattr(train, "compare", lambda *_: None)
            train.main()

        for file in run.checkpoints.glob("step_4.ckpt*"):
            file.unlink()
        patch.setattr(sys, "argv", ["learned_opt", *words, "trainer.max_steps=5"])
        train.main()
    return folder


def mlflow_run(folder: Path) -> tuple[Any, Any]:
    """The client of the store, and the only run in it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("trackers")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def figures_of(run: RunFolder) -> set[str]:
    with run.metrics.open() as file:
        return set(next(csv.reader(file))) - {"step"}


@needs_both
def test_tensorboard_has_every_figure_once_under_its_outer_step(killed) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(killed / "run")
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert figures_of(run) <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("meta_loss/train")] == [*STEPS, 4]
    assert [event.step for event in events.Scalars("meta_loss/valid")] == [3, 4]

    results = read_evaluation(run.evaluation)
    for name, value in heldout_means(results).items():
        event = events.Scalars(name)[-1]
        assert (event.step, event.value) == (4, pytest.approx(value))


@needs_both
def test_tensorboard_shows_the_settings_as_hyperparameters(killed) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    events = EventAccumulator(str(RunFolder(killed / "run").tensorboard))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = parse_session_start_info_plugin_data(content).hparams
    assert settings["seed"].number_value == 0
    assert settings["estimator/_target_"].string_value == "learned_opt.estimators.pes.PES"
    assert settings["provenance/device"].string_value == "cpu"


@needs_both
def test_a_run_that_is_only_compared_again_keeps_its_rows(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = f"sqlite:///{tmp_path}/store.db"
    for loss in (0.5, 0.25):
        loggers = [TensorBoard(str(tmp_path), flush_secs=30), tracker(tmp_path, store)]
        start_runs(loggers)
        for logger in loggers:
            if loss == 0.5:
                for step in range(3):
                    logger.log_metrics({"meta_loss/train": 1.0}, step)
            logger.finalize("success")
            logger.log_metrics({"mean_loss/heldout/mlp": loss}, 2)
            logger.finalize("success")

    events = EventAccumulator(str(RunFolder(tmp_path).tensorboard))
    events.Reload()
    assert [event.step for event in events.Scalars("meta_loss/train")] == [0, 1, 2]
    assert [event.value for event in events.Scalars("mean_loss/heldout/mlp")] == [0.5, 0.25]
    (again,) = loggers[1:]
    tracked = again.experiment.get_run(again.run_id).data.metrics
    assert tracked["mean_loss/heldout/mlp"] == 0.25


@needs_both
def test_mlflow_has_one_run_with_every_figure_once(killed) -> None:
    run = RunFolder(killed / "run")
    client, tracked = mlflow_run(killed)
    assert run.mlflow_id.read_text().strip() == tracked.info.run_id
    assert tracked.info.status == "FINISHED"
    assert tracked.info.run_name == "mlp-sgdm-0"

    assert figures_of(run) <= set(tracked.data.metrics)
    history = client.get_metric_history(tracked.info.run_id, "meta_loss/train")
    assert [metric.step for metric in history] == [*STEPS, 4]

    for name, value in heldout_means(read_evaluation(run.evaluation)).items():
        assert tracked.data.metrics[name] == pytest.approx(value)
        (*_, last) = client.get_metric_history(tracked.info.run_id, name)
        assert last.step == 4


@needs_both
def test_mlflow_keeps_the_settings_of_the_start_and_those_that_changed(killed) -> None:
    _, tracked = mlflow_run(killed)
    assert tracked.data.params["trainer/max_steps"] == "4"
    assert tracked.data.params["task/_target_"] == "tasks.supervised.Classification"
    assert tracked.data.tags["later/trainer/max_steps"] == "5"
    assert tracked.data.tags["estimator"] == "pes"
    assert tracked.data.tags["run_folder"] == str(killed / "run")
    assert "sweep" not in tracked.data.tags


@needs_both
def test_a_run_that_its_store_does_not_know_is_refused(killed, tmp_path) -> None:
    run = RunFolder(tmp_path)
    run.mlflow_id.write_text("0123456789abcdef0123456789abcdef\n")
    logger = tracker(tmp_path, f"sqlite:///{killed}/runs/mlflow.db")
    with pytest.raises(ConnectionError, match=r"MLflow does not start: .*not found.*mlflow_id.txt"):
        start_runs([logger])


@needs_both
def test_a_store_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"MLflow does not start: .*nonsense"):
        tracker(tmp_path, "nonsense://store")


@needs_both
def test_figures_wait_for_a_store_that_does_not_take_them(tmp_path, monkeypatch, caplog) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logger = tracker(tmp_path, f"sqlite:///{tmp_path}/store.db")
    start_runs([logger])
    with monkeypatch.context() as patch:

        def refuse(*_: Any, **__: Any) -> None:
            raise MlflowException("the database is locked.\nINSERT INTO ...")

        patch.setattr(MlflowClient, "log_batch", refuse)
        for step in range(3):
            logger.log_metrics({"meta_loss/train": float(step)}, step)
    assert "MLflow lacks 1 rows of figures: the database is locked." in caplog.text
    assert "INSERT" not in caplog.text

    logger.finalize("success")
    history = logger.experiment.get_metric_history(logger.run_id, "meta_loss/train")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.0), (1, 1.0), (2, 2.0)]


def tracker(folder: Path, store: str) -> MLflow:
    return MLflow(
        save_dir=str(folder),
        experiment_name="trackers",
        run_name="name",
        tracking_uri=store,
        tags={},
        sweep_dir=str(folder.parent / "sweep"),
        checkpoint=None,
    )


def test_a_package_that_is_missing_is_a_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(optional_packages, "find_spec", lambda _: None)
    sentence = (
        r"^logger=tensorboard needs tensorboard, which is not installed; pip install -e '\.\["
    )
    with pytest.raises(ValueError, match=sentence):
        TensorBoard(str(tmp_path), flush_secs=30)
    with pytest.raises(ValueError, match=r"^logger=mlflow needs mlflow, sqlalchemy, alembic, "):
        tracker(tmp_path, "sqlite:///store.db")

"""Unrolls that were not finite: the recipes that meta-training writes, their replay, and the end of a hopeless run."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from learned_opt.commands import train
from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.checkpoints import find_checkpoint
from learned_opt.training.replay import Recorder, load_recipe, replay
from tasks.quadratic import Quadratic
from tests.cases import spec_of
from tests.commands.test_cli import TINY
from tests.helpers.known_meta_gradients import HORIZON, THETA, GradientDescent, on_network
from tests.training.test_trainer import fit, make_module

FAST = 150.0  # log learning rate at which the quadratic's loss overflows after a few steps


def recorded(folder: Path, split: str = "train"):
    """A PES estimate of which pair 2 has overflowed: estimator, recipe file, and what there was."""
    family = Quadratic(dim=2, noise=0.1, dtype=torch.float64)
    inner = Unroll(family, GradientDescent(spec_of(family)), compile=False)
    estimator = PES(inner, Constant(HORIZON), 4, HORIZON, 0.1, meta_loss=MetaLoss(split=split))
    state = estimator.init_state(THETA, generator("start"))
    launch = estimator.launch(THETA, state, generator(0))
    launch.theta["log_lr"][4 + 2] = FAST  # the minus chain
    losses, _ = estimator.population.run(launch)
    recorder = Recorder(folder, estimator, {"task": "quadratic"}, max_recipes=3)
    recorder.record(launch, losses.isfinite(), 7)
    return estimator, recorder, launch, losses.isfinite()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_replay_is_the_unroll_of_that_chain(tmp_path, split) -> None:
    estimator, _, launch, finite = recorded(tmp_path, split)
    assert (~finite).nonzero().tolist() == [[1, 2]]
    recipe, tensors = load_recipe(tmp_path / "step7_task2.yaml")
    assert (recipe.outer_step, recipe.task, recipe.copy, recipe.config) == (
        7,
        2,
        1,
        {"task": "quadratic"},
    )
    losses: list[float] = []
    inner = estimator.population.unroll
    found = replay(inner, recipe, tensors, lambda step, loss: losses.append(loss))
    keys, chains = [(launch.root, task) for task in (0, 1, 2, 3)] * 2, launch.state["chains"]
    streams = [inner.batches(keys, chains, HORIZON, name) for name in ("train", split)]
    expected, _ = inner.run(launch.theta, chains, streams[0], measured=streams[1])
    first = int(expected[:, 6].isfinite().int().argmin())
    assert 1 < first < HORIZON
    assert found == f"loss in inner step {first}"
    torch.testing.assert_close(torch.tensor(losses, dtype=torch.float64), expected[: first + 1, 6])


def test_what_stays_finite_is_not_reproduced(tmp_path) -> None:
    estimator, *_ = recorded(tmp_path)
    recipe, tensors = load_recipe(tmp_path / "step7_task2.yaml")
    steps: list[int] = []
    tame = tensors | {"theta/log_lr": THETA["log_lr"]}
    assert (
        replay(estimator.population.unroll, recipe, tame, lambda step, loss: steps.append(step))
        == ""
    )
    assert steps == list(range(HORIZON))


class Overflow(GradientDescent):
    """Its momentum, and with it the update, overflows at step 2 while gradient and loss are fine."""

    def forward(
        self, grads: dict, state: dict, params: dict, loss: torch.Tensor
    ) -> tuple[dict, dict]:
        scale = torch.where(state["step"] == 2, torch.inf, 1.0)
        return {k: -self.log_lr.exp() * g * scale for k, g in grads.items()}, {
            "step": state["step"] + 1
        }


class Kink(GradientDescent):
    """Its updates are finite, their derivative by theta is not."""

    def forward(
        self, grads: dict, state: dict, params: dict, loss: torch.Tensor
    ) -> tuple[dict, dict]:
        return {k: -(self.log_lr * 0).sqrt() * g for k, g in grads.items()}, state


def replayed(folder: Path, optimizer: type, kind, **settings) -> str:
    family = Quadratic(dim=2, dtype=torch.float64)
    inner = Unroll(family, optimizer(spec_of(family)), compile=False)
    estimator = kind(inner, Constant(HORIZON), 2, HORIZON, **settings)
    state = estimator.init_state(THETA, generator("start"))
    estimate, _ = estimator.estimate(THETA, state, generator(0))
    assert not estimate.finite.any()
    recorder = Recorder(folder, estimator, {}, max_recipes=9)
    recorder.record(estimator.launch(THETA, state, generator(0)), estimate.finite, 0)
    recipe, tensors = load_recipe(folder / "step0_task1.yaml")
    return replay(inner, recipe, tensors, lambda step, loss: None)


def test_the_first_tensor_is_named(tmp_path) -> None:
    assert replayed(tmp_path / "a", Overflow, PES, sigma=0.1) == "params/x in inner step 2"
    assert replayed(tmp_path / "b", Kink, BPTT) == "gradient of the summed losses by theta's log_lr"
    estimator, theta = on_network(PES, "sgdm", num_tasks=1)
    state = estimator.init_state(theta, generator("start"))
    state["chains"]["params"]["layers.0.bias"][:] = (
        torch.inf
    )  # relu, softmax: the loss is nan at once
    launch = estimator.launch(theta, state, generator(0))
    Recorder(tmp_path, estimator, {}, 1).record(launch, torch.zeros(2, 1, dtype=torch.bool), 3)
    recipe, tensors = load_recipe(tmp_path / "step3_task0.yaml")
    assert (
        replay(estimator.population.unroll, recipe, tensors, lambda *_: None)
        == "loss in inner step 0"
    )


def test_a_handful_is_written_and_the_rest_is_counted(tmp_path, caplog) -> None:
    _, recorder, launch, finite = recorded(tmp_path / "replay")
    for step in range(8, 12):
        recorder.record(launch, finite, step)
    recorder.summarise()
    names = sorted(path.name for path in (tmp_path / "replay").glob("*.yaml"))
    assert names == ["step7_task2.yaml", "step8_task2.yaml", "step9_task2.yaml"]
    assert (
        f"2 more unrolls were not finite and have no recipe in {tmp_path / 'replay'}" in caplog.text
    )


def test_the_trainer_writes_recipes_and_stops(tmp_path) -> None:
    module, stop = make_module("sgdm", steps=20), StopWhenNothingIsFinite(patience=4)
    module.recorders = {"": Recorder(tmp_path / "replay", module.estimator, {}, max_recipes=2)}

    class Explode(StopWhenNothingIsFinite):
        def on_train_batch_start(self, trainer, pl_module, *_) -> None:
            if trainer.global_step in (2, 6):  # two steps healthy in between, then hopeless
                pl_module.theta["log_lr"].data.fill_(torch.nan)
            if trainer.global_step == 4:
                pl_module.theta["log_lr"].data.fill_(-3.0)

    trainer = fit(module, tmp_path, Explode(patience=100), stop, steps=20)
    assert stop.stopped
    assert trainer.global_step == 6 + 4
    assert len(list((tmp_path / "replay").glob("*.yaml"))) == 2
    assert find_checkpoint(tmp_path).is_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.with_suffix(".safetensors").unlink(), "there is no file"),
        (lambda path: path.with_suffix(".safetensors").write_bytes(b"cut"), "is damaged"),
        (lambda path: path.write_text("task: 3\n"), "is no recipe of an unroll"),
        (lambda path: path.write_text("a: [\n"), "is no recipe of an unroll"),
    ],
)
def test_damaged_recipes_are_refused(tmp_path, damage, message) -> None:
    recorded(tmp_path)
    damage(tmp_path / "step7_task2.yaml")
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "step7_task2.yaml")


def test_tensors_of_another_problem_are_refused(tmp_path) -> None:
    recorded(tmp_path)
    recipe, tensors = load_recipe(tmp_path / "step7_task2.yaml")
    estimator, _ = on_network(PES, "sgdm")
    with pytest.raises(
        ValueError,
        match=r"do not fit its config: missing: .*chain/params/layers.*unexpected: chain/params/x",
    ):
        replay(estimator.population.unroll, recipe, tensors, lambda *_: None)


def run(monkeypatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["learned_opt", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    return stop.value.code


def test_a_run_that_explodes_and_its_replay_as_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    hopeless = ["learned.alpha=1e12", "callbacks.stop_after_nonfinite=3", "callbacks.max_replays=1"]
    assert run(monkeypatch, "+task=mlp", *TINY, "trainer.max_steps=9", *hopeless) == 1
    error = capsys.readouterr().err
    assert (
        "learned_opt: no task stayed finite for 3 outer steps in a row, up to step 3; lower the outer"
        in error
    )
    (path,) = tmp_path.glob("runs/mlp/*/replay/*.yaml")
    assert run(monkeypatch, f"replay={path}") == 0
    shown = capsys.readouterr().out
    assert "outer step 0, task 0, copy 0: 3 inner steps" in shown
    assert "first not finite: " in shown
    recipe = yaml.safe_load(path.read_text())
    recipe["unroll_length"] = 1  # too short for it to explode
    path.write_text(yaml.safe_dump(recipe))
    assert run(monkeypatch, f"replay={path}") == 1
    assert "not reproduced" in capsys.readouterr().out
    assert run(monkeypatch, f"replay={path}", "devize=cpu") == 2
    assert run(monkeypatch, "replay=nowhere.yaml") == 2
    assert "there is no file nowhere.yaml." in capsys.readouterr().err
    assert len(list(tmp_path.glob("runs/*/*"))) == 1  # a replay makes no run folder

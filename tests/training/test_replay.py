"""Unrolls that were not finite: their recipes, their replay, and the end of a hopeless run."""

import sys
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch
import yaml

from learned_opt.commands import front_door
from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.replay import ReplayRecipes
from learned_opt.training.checkpoint_files import find_checkpoint
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.nonfinite import nonfinite_unrolls
from learned_opt.training.recipe import load_recipe
from learned_opt.training.replay import replay
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, spec_of
from tests.commands.test_cli import TINY
from tests.helpers.known_meta_gradients import HORIZON, THETA, GradientDescent, on_network
from tests.helpers.made_folders import only_folder_of
from tests.training.test_trainer import fit, make_module

FAST = 150.0  # log learning rate at which the quadratic's loss overflows after a few steps


def record(folder: Path, estimator, start, finite, outer_step: int, recipes=None) -> None:
    """What meta-training does about unrolls that were not finite."""
    problem = InnerProblem("quadratic", estimator.population.unroll, HORIZON, 1, estimator)
    recipes = recipes or ReplayRecipes(max_recipes=9)
    recipes.record(folder, problem, nonfinite_unrolls(start, finite), outer_step)


def recorded(folder: Path, split: str = "train"):
    """A PES estimate of which pair 2 has overflowed: its estimator, start and what was finite."""
    family = Quadratic(dim=2, noise=0.1, dtype=torch.float64)
    inner = Unroll(family, GradientDescent(spec_of(family)), compile=False)
    estimator = PES(inner, Constant(HORIZON), 4, HORIZON, 0.1, meta_loss=MetaLoss(split=split))
    state = estimator.init_state(THETA, generator("start"))
    start = estimator.unroll_start(THETA, state, generator(0))
    start.theta["log_lr"][4 + 2] = FAST  # the minus chain
    losses, _ = estimator.population.run(start)

    problem = InnerProblem("quadratic", inner, HORIZON, 1, estimator, {"task": "quadratic"})
    unrolls = nonfinite_unrolls(start, losses.isfinite())
    ReplayRecipes(max_recipes=3).record(folder, problem, unrolls, 7)
    return estimator, start, losses.isfinite()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_replay_is_the_unroll_of_that_chain(tmp_path, split) -> None:
    estimator, start, finite = recorded(tmp_path, split)
    assert (~finite).nonzero().tolist() == [[1, 2]]
    recipe, tensors = load_recipe(tmp_path / "step7_task2.yaml")
    assert (recipe.outer_step, recipe.task, recipe.copy) == (7, 2, 1)
    assert recipe.config == {"task": "quadratic"}
    losses: list[float] = []
    inner = estimator.population.unroll
    cause = replay(inner, recipe, tensors, lambda step, loss: losses.append(loss))
    chains = start.state["chains"]
    keys = [(start.root, task) for task in (0, 1, 2, 3)] * 2
    batches = inner.batches(keys, chains, HORIZON, "train")
    measured = inner.batches(keys, chains, HORIZON, split)
    expected, _ = inner.run(start.theta, chains, batches, measured=measured)
    first = int(expected[:, 6].isfinite().int().argmin())
    assert 1 < first < HORIZON
    assert cause == f"loss in inner step {first}"
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
    """Its momentum, and so the update, overflows at step 2 while gradient and loss are fine."""

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


def replayed(folder: Path, optimizer: type, kind, family=None, **settings) -> str:
    family = family or Quadratic(dim=2, dtype=torch.float64)
    inner = Unroll(family, optimizer(spec_of(family)), compile=False)
    estimator = kind(inner, Constant(HORIZON), 2, HORIZON, **settings)
    state = estimator.init_state(THETA, generator("start"))
    estimate, _ = estimator.estimate(THETA, state, generator(0))
    assert not estimate.finite.any()
    start = estimator.unroll_start(THETA, state, generator(0))
    record(folder, estimator, start, estimate.finite, outer_step=0)
    recipe, tensors = load_recipe(folder / "step0_task1.yaml")
    return replay(inner, recipe, tensors, lambda step, loss: None)


def test_the_first_tensor_is_named(tmp_path) -> None:
    assert replayed(tmp_path / "a", Overflow, PES, sigma=0.1) == "params/x in inner step 2"
    assert replayed(tmp_path / "b", Kink, BPTT) == "gradient of the summed losses by theta's log_lr"
    estimator, theta = on_network(PES, "sgdm", num_tasks=1)
    state = estimator.init_state(theta, generator("start"))
    # relu, softmax: the loss is nan at once
    state["chains"]["params"]["layers.0.bias"][:] = torch.inf
    start = estimator.unroll_start(theta, state, generator(0))
    record(tmp_path, estimator, start, torch.zeros(2, 1, dtype=torch.bool), outer_step=3)
    recipe, tensors = load_recipe(tmp_path / "step3_task0.yaml")
    assert (
        replay(estimator.population.unroll, recipe, tensors, lambda *_: None)
        == "loss in inner step 0"
    )


def test_a_network_on_data_is_replayed_too(tmp_path) -> None:
    """Its batches have axes of their own, beside those of inner steps and chains."""
    family = FAMILIES["mlp"]()
    cause = replayed(tmp_path, Overflow, PES, family, sigma=0.1)
    assert cause == "params/layers.0.weight in inner step 2"


def test_a_handful_is_written_and_the_rest_is_counted(tmp_path, caplog) -> None:
    estimator, start, finite = recorded(tmp_path / "replay")
    recipes = ReplayRecipes(max_recipes=3)
    for step in range(8, 12):
        record(tmp_path / "replay", estimator, start, finite, step, recipes)
    recipes.on_train_end(None, None)  # pyright: ignore[reportArgumentType]
    names = sorted(path.name for path in (tmp_path / "replay").glob("*.yaml"))
    assert names == ["step7_task2.yaml", "step8_task2.yaml", "step9_task2.yaml"]
    assert (
        f"2 more unrolls were not finite and have no recipe in {tmp_path / 'replay'}" in caplog.text
    )


def test_the_trainer_writes_recipes_and_stops(tmp_path) -> None:
    module = make_module("sgdm", steps=20)
    stop = StopWhenNothingIsFinite(patience=4)

    class Explode(StopWhenNothingIsFinite):
        def on_train_batch_start(self, trainer, pl_module, *_) -> None:
            if trainer.global_step in (2, 6):  # two steps healthy in between, then hopeless
                pl_module.theta["log_lr"].data.fill_(torch.nan)
            if trainer.global_step == 4:
                pl_module.theta["log_lr"].data.fill_(-3.0)

    callbacks = (Explode(patience=100), stop, ReplayRecipes(max_recipes=2))
    trainer = fit(module, tmp_path, *callbacks, steps=20)
    assert stop.stopped
    assert trainer.global_step == 6 + 4
    assert len(list((tmp_path / "replay").glob("*.yaml"))) == 2
    assert find_checkpoint(tmp_path).is_file()


def test_a_recipe_holds_theta_as_it_was_before_the_outer_step(tmp_path) -> None:
    """It is written after the outer optimizer has changed theta in place."""
    module = make_module("sgdm")
    problem = module.problems[""]
    module.estimator = BPTT(problem.unroll, Constant(4), 3, 2)
    module.problems = {"": replace(problem, estimator=module.estimator)}
    thetas = []

    class Break(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_) -> None:
            thetas.append(pl_module.theta["log_lr"].item())
            if trainer.global_step == 2:  # one task of three, so that theta still moves
                params = pl_module.estimator_state["chains"]["params"]
                params["layers.0.bias"][1] = torch.inf

    fit(module, tmp_path, Break(), ReplayRecipes(max_recipes=2))
    (path,) = (tmp_path / "replay").glob("*.yaml")
    assert path.name == "step2_task1.yaml"
    recipe, tensors = load_recipe(path)
    assert recipe.backpropagates
    assert tensors["theta/log_lr"].item() == thetas[2]
    assert len(set(thetas)) == len(thetas)


def drop_format(path: Path) -> None:
    """Make of a recipe one that was written before recipes had a number."""
    recipe = yaml.safe_load(path.read_text())
    del recipe["format"]
    path.write_text(yaml.safe_dump(recipe))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.with_suffix(".safetensors").unlink(), "there is no file"),
        (lambda path: path.with_suffix(".safetensors").write_bytes(b"cut"), "is damaged"),
        (lambda path: path.write_text("task: 3\n"), "is no recipe of an unroll"),
        (lambda path: path.write_text("a: [\n"), "is no recipe of an unroll"),
        (drop_format, "has format 1, this version reads 2; replay it with"),
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
        front_door.main()
    return stop.value.code


def test_a_run_that_explodes_and_its_replay_as_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    hopeless = [
        "learned.alpha=1e12",
        "callbacks.divergence.patience=3",
        "callbacks.replay.max_recipes=1",
    ]
    assert run(monkeypatch, "+task=mlp", *TINY, "trainer.max_steps=9", *hopeless) == 1
    error = capsys.readouterr().err
    assert "learned_opt: no task stayed finite for 3 outer steps in a row, up to step 3;" in error
    assert "; lower the outer learning rate" in error
    (path,) = tmp_path.glob("runs/mlp/latest/replay/*.yaml")
    assert run(monkeypatch, "replay", str(path)) == 0
    shown = capsys.readouterr().out
    assert "outer step 0, task 0, copy 0: 3 inner steps" in shown
    assert "first not finite: " in shown
    recipe = yaml.safe_load(path.read_text())
    recipe["unroll_length"] = 1  # too short for it to explode
    path.write_text(yaml.safe_dump(recipe))
    assert run(monkeypatch, "replay", str(path)) == 1
    assert "not reproduced" in capsys.readouterr().out
    assert run(monkeypatch, "replay", str(path), "devize=cpu") == 2
    assert run(monkeypatch, "replay", "nowhere.yaml") == 2
    assert "there is no file nowhere.yaml." in capsys.readouterr().err
    assert only_folder_of(only_folder_of(tmp_path / "runs"))  # a replay makes no run folder

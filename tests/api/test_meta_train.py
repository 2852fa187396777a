"""meta_train: the bits of the command, a folder that goes on, and what is refused."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import nn
from typing_extensions import override

import learned_opt
from learned_opt.api import training_run, watching
from learned_opt.api.meta_train import meta_train
from learned_opt.api.settings import Settings
from learned_opt.commands import train
from learned_opt.deploy import pretrained
from learned_opt.estimators.base import GradientEstimator
from learned_opt.estimators.es import ES
from learned_opt.estimators.nres import NRES
from learned_opt.estimators.pes import PES
from learned_opt.evaluation.frames import select
from learned_opt.evaluation.results import read_evaluation
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.optimizers.schedule import Cosine
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.training.block_schedule import After, block_schedule
from learned_opt.training.callbacks.signal_rates import SignalRates
from learned_opt.training.callbacks.theta_average import ThetaAverage
from learned_opt.unf.layers import Pointwise, PointwiseUNFLinear
from tasks.data.embedded import digits
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.supervised import Classification
from tests.cases import FAMILIES, FourMethods, spec_of

CONFIGS = Path(__file__).parents[2] / "configs"
UNF = partial(
    UNFOptimizer,
    head=partial(PointwiseUNFLinear, init="zero"),
    alpha=1.0,
    beta=0.03,
    normalisation="channel",
)
DEEP_SET = partial(UNFOptimizer, head=Pointwise, channels=4)
SMALL = {"num_tasks": 3, "unroll_length": 2, "sigma": 0.03}
SMALL_PES = partial(PES, **SMALL)
ADAMW = partial(torch.optim.AdamW, lr=0.01, betas=(0.9, 0.999), weight_decay=0.0)
QUIET = {"compile": False, "progress": False}


def small(task=None, optimizer=DEEP_SET, estimator=SMALL_PES, steps=3, **settings):
    """A training of a second."""
    settings = {"horizon": 4, **QUIET, **settings}
    task = Quadratic() if task is None else task
    return meta_train(task, optimizer, estimator, steps, **settings)


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module", params=["pes", pytest.param("es", marks=pytest.mark.slow)])
def command(request, tmp_path_factory) -> tuple[str, Path]:
    """The name of an estimator, and the folder of a run that the command has made with it."""
    folder = tmp_path_factory.mktemp(request.param)
    words = ["+task=mlp", f"estimator={request.param}", "trainer.max_steps=3", "horizon=8"]
    words += ["estimator.unroll_length=4", "estimator.num_tasks=3", "compile=false"]
    words += ["benchmark.num_seeds=2", "benchmark.num_chains=6", "benchmark.num_lrs=2"]
    words += ["benchmark.num_tuning_seeds=1", f"benchmark.archive={folder / 'tuned'}"]
    words += ["device=cpu", f"hydra.run.dir={folder / 'run'}", "benchmark.ledger=null", "seed=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["learned_opt", *words])
        train.main()
    return request.param, folder / "run"


def test_the_same_bits_as_the_command(command) -> None:
    """Theta, the metrics of every outer step, and what theta.json says of the optimizer."""
    kind, run = command
    estimator = {"pes": PES, "es": ES}[kind]
    task = Classification("mlp", partial(MLP, hidden_sizes=[32]), digits(0.2), batch_size=128)
    result = learned_opt.meta_train(
        task,
        UNF,
        partial(estimator, num_tasks=3, unroll_length=4, sigma=0.03),
        steps=3,
        horizon=8,
        seed=3,
        name="unf",
        device="cpu",
        **QUIET,
    )
    assert equal(dict(sorted(result.theta.items())), load_file(run / "theta.safetensors"))

    lines = (run / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    for name in ("meta_loss/train", "meta_grad_norm", "meta_loss/valid", "final_loss/valid"):
        column = [line.split(",")[names.index(name)] for line in lines[1:]]
        expected = [float(cell) for cell in column if cell]
        assert result.history[name].dropna().tolist() == expected, name

    written = json.loads((run / "theta.json").read_text())
    assert result.metadata["specs"] == written["specs"]
    assert json.loads(json.dumps(result.metadata["tasks"])) == written["tasks"]
    expected = select(read_evaluation(run / "evaluation.json").frame, optimizer="unf")
    figures = learned_opt.evaluate(result, task, 8, seeds=2, **QUIET)
    for name in ("initial_loss", "mean_loss", "final_loss", "accuracy", "test_loss"):
        assert figures[name].tolist() == pytest.approx(expected[name].tolist(), rel=1e-5), name

    node = json.loads(json.dumps(result.metadata["meta_optimizer"]))
    assert {key: node[key] for key in written["meta_optimizer"] if key != "trunk"} == {
        key: value for key, value in written["meta_optimizer"].items() if key != "trunk"
    }


def test_settings_by_block_give_the_bits_of_the_command(tmp_path, monkeypatch) -> None:
    """Rates of blocks, a stage, rates by signal, and an average of theta."""
    words = ["+task=mlp", "outer_optimizer=signal", "benchmark=none", "trainer.max_steps=4"]
    words += ["horizon=8", "estimator.unroll_length=4", "estimator.num_tasks=3", "compile=false"]
    words += ["device=cpu", "~callbacks.diagnostics", f"hydra.run.dir={tmp_path / 'run'}"]
    words += [
        "+outer_optimizer.schedule.factors.equivariant._target_="
        "learned_opt.training.block_schedule.After",
        "+outer_optimizer.schedule.factors.equivariant.start=2",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["learned_opt", *words])
    train.main()

    average = ThetaAverage(0.99)
    result = learned_opt.meta_train(
        Classification("mlp", partial(MLP, hidden_sizes=[32]), digits(0.2), batch_size=128),
        UNF,
        partial(PES, num_tasks=3, unroll_length=4, sigma=0.03),
        steps=4,
        horizon=8,
        outer_optimizer=ADAMW,
        blocks={
            "equivariant": {"lr": 2e-3, "betas": (0.99, 0.999), "weight_decay": 0.01},
            "pointwise": {},
            "scalars": {},
        },
        schedule=partial(
            block_schedule, factors={"equivariant": After(2)}, otherwise=Cosine(4, final=0.05)
        ),
        callbacks=[average, SignalRates(0.99, 0.1)],
        device="cpu",
        **QUIET,
    )
    assert equal(
        dict(sorted(result.theta.items())), load_file(tmp_path / "run" / "theta.safetensors")
    )
    averaged = {name: p.detach() for name, p in average.optimizer.named_parameters()}
    written = load_file(tmp_path / "run" / "theta_average.safetensors")
    assert equal(dict(sorted(averaged.items())), written)
    assert "rate_factor/equivariant" in result.history


def test_the_defaults_are_those_of_the_commands() -> None:
    def read(name: str) -> dict:
        return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())

    outer = read("outer_optimizer/adam")
    result_settings = settings_of_defaults()
    adam, cosine = result_settings.outer
    assert adam.func.__name__ == outer["optimizer"]["_target_"].rpartition(".")[2]
    assert adam.keywords["lr"] == outer["optimizer"]["lr"]
    assert cosine.func.__name__ == outer["schedule"]["_target_"].rpartition(".")[2]
    assert cosine.keywords == {"T_max": 600, "eta_min": outer["schedule"]["eta_min"]}

    assert read("callbacks/signal_to_noise")["signal_to_noise"]["decay"] == watching.SIGNAL_DECAY
    assert read("callbacks/divergence")["divergence"]["patience"] == watching.PATIENCE
    assert read("callbacks/checkpoints")["checkpoints"]["keep"] == watching.KEPT_CHECKPOINTS
    assert read("logger/csv")["csv"]["flush_every"] == training_run.FLUSH_EVERY

    defaults = meta_train.__kwdefaults__
    assert defaults["checkpoint_every"] == read("callbacks/checkpoints")["checkpoints"]["every"]
    assert defaults["validate_every"] == read("callbacks/validation")["validation"]["every"]
    trainer = read("trainer/default")
    assert defaults["gradient_clip"] == trainer["gradient_clip_val"]
    config = read("config")
    for name in ("horizon", "seed", "device", "compile", "precision"):
        assert defaults[name] == config[name], name

    made = training_run._trainer(result_settings).keywords
    for name, value in made.items():
        expected = {**trainer, "max_steps": 600}[name]
        assert value == expected, name


def settings_of_defaults():
    defaults = meta_train.__kwdefaults__
    names = ("outer_optimizer", "schedule", "gradient_clip", "truncation", "augment", "precision")
    chosen = {name: defaults[name] for name in names}
    return Settings(
        tasks={"quadratic": Quadratic()},
        optimizer=UNF,
        estimator=partial(PES, **SMALL),
        steps=600,
        horizons={"quadratic": 200},
        seed=0,
        weights={"quadratic": 1.0},
        name=None,
        **chosen,
    )


def test_nothing_is_written_or_drawn_or_left_behind(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = logging.getLogger("lightning.pytorch").handlers[:]
    interrupt = signal.getsignal(signal.SIGINT)
    before = torch.random.get_rng_state()
    result = small()
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logging.getLogger("lightning.pytorch").handlers == handlers
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert capfd.readouterr() == ("", "")
    assert result.history["step"].tolist() == [0, 1, 2]
    assert not result.interrupted
    assert "3 outer steps" in repr(result)


def test_the_training_trains() -> None:
    """The learning rate of gradient descent on a bowl whose best rate is known to be large."""
    sgdm = partial(make_sgdm, lr=0.01, gamma=0.01)
    pes = partial(PES, num_tasks=8, unroll_length=10, sigma=0.1)
    outer = partial(torch.optim.Adam, lr=0.1)
    result = small(
        Quadratic(dim=2, condition=1.0), sgdm, pes, 30, horizon=10, outer_optimizer=outer
    )
    assert result.theta["log_lr"].exp().item() > 0.05
    losses = result.history["meta_loss/train"].tolist()
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_saved_is_what_from_pretrained_takes(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    result = small()
    folder = result.save(tmp_path / "theta")
    optimizer, metadata = pretrained.load(folder)
    theta = {name: p.detach() for name, p in optimizer.named_parameters()}
    assert equal(theta, result.theta)
    assert metadata["provenance"]["outer_steps"] == "3"
    learned_opt.LearnedOptimizer.from_pretrained(folder, model)
    learned_opt.LearnedOptimizer(model, result.optimizer)


def test_a_mix_of_tasks_has_one_theta_and_its_own_horizons() -> None:
    tasks = {"mlp": FAMILIES["mlp"](), "bowl": Quadratic()}
    weights = {"mlp": 2.0, "bowl": 1.0}
    result = small(tasks, horizon={"mlp": 4, "bowl": 8}, weights=weights, steps=2)
    assert {"meta_loss/train/mlp", "meta_loss/valid/bowl"} <= set(result.history)
    assert list(result.tasks) == list(result.metadata["specs"]) == ["mlp", "bowl"]
    assert len(result.history) == 2


def test_a_task_of_four_methods_of_somebody_else_will_do() -> None:
    result = small(FourMethods(), steps=2)
    assert result.metadata["tasks"] == {"task": {"task": "task"}}


class Lines(Callback):
    """A callback of a user's own."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    @override
    def on_train_batch_end(self, trainer, pl_module, *_, **__) -> None:
        self.steps.append(trainer.global_step)


def test_callbacks_and_loggers_of_the_user_are_called(tmp_path) -> None:
    lines = Lines()
    logger = lightning.pytorch.loggers.CSVLogger(tmp_path, name="", version="mine")
    small(callbacks=[lines], logger=logger)
    assert lines.steps == [1, 2, 3]
    assert (tmp_path / "mine" / "metrics.csv").read_text().count("\n") >= 3


# a folder


def test_a_folder_holds_the_run_and_a_second_call_comes_back_at_once(tmp_path) -> None:
    first = small(folder=tmp_path / "run", checkpoint_every=2)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"theta.safetensors", "theta.json", "metrics.csv", "checkpoints"} <= names
    again = small(folder=tmp_path / "run", checkpoint_every=2)
    assert equal(first.theta, again.theta)
    assert again.history["step"].tolist() == [0, 1, 2]


class Broken(Exception):
    """A training that breaks off."""


class Breaks(Callback):
    """Raises in an outer step."""

    @override
    def on_train_batch_end(self, trainer, pl_module, *_, **__) -> None:
        if trainer.global_step == 3:
            raise Broken


KILLED = """
import os, signal, sys
from tests.api.test_meta_train import small
from lightning.pytorch.callbacks import Callback

class Killer(Callback):
    def on_train_batch_end(self, trainer, *_, **__):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

small(steps=5, folder=sys.argv[1], checkpoint_every=1, callbacks=[Killer()])
"""


def breaks(folder: Path) -> None:
    with pytest.raises(Broken):
        small(steps=5, folder=folder, checkpoint_every=1, callbacks=[Breaks()])


def is_killed(folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("ends", [breaks, pytest.param(is_killed, marks=pytest.mark.slow)])
def test_a_run_that_breaks_off_goes_on_bit_for_bit(tmp_path, ends) -> None:
    ends(tmp_path / "run")
    assert not (tmp_path / "run" / "theta.json").exists()
    resumed = small(steps=5, folder=tmp_path / "run", checkpoint_every=1)
    straight = small(steps=5)
    assert equal(resumed.theta, straight.theta)
    assert resumed.history["step"].tolist() == list(range(5))
    for name in ("meta_loss/train", "meta_grad_norm", "meta_grad_snr"):
        expected = straight.history[name].dropna().tolist()
        assert resumed.history[name].dropna().tolist() == pytest.approx(expected, rel=1e-12)


def test_a_folder_of_another_run_is_refused(tmp_path) -> None:
    small(folder=tmp_path, checkpoint_every=1)
    for change in (
        {"seed": 1},
        {"estimator": partial(PES, **{**SMALL, "sigma": 0.02})},
        {"task": Quadratic(dim=3)},
        {"steps": 2},
    ):
        (name,) = change
        with pytest.raises(ValueError, match=r"another config.*another folder") as e:
            small(folder=tmp_path, **change)
        assert name in str(e.value)
    assert len(small(folder=tmp_path, steps=4).history) == 4


def test_checkpoints_of_a_command_are_refused(tmp_path) -> None:
    small(folder=tmp_path, checkpoint_every=1)
    (tmp_path / "identity.yaml").unlink()
    with pytest.raises(ValueError, match="not the settings that they belong to"):
        small(folder=tmp_path)


# Ctrl-C


class Interrupter(Callback):
    """Presses Ctrl-C in an outer step, once or twice."""

    def __init__(self, times: int) -> None:
        self.times = times

    @override
    def on_train_batch_start(self, trainer, pl_module, *_, **__) -> None:
        if trainer.global_step == 1:
            for _i in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Ctrl-C as in a terminal; a process that was started behind others may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_returns_what_is_trained(tmp_path, capfd) -> None:
    result = small(steps=9, callbacks=[Interrupter(1)], folder=tmp_path)
    assert result.interrupted
    assert "interrupted" in repr(result)
    assert result.history["step"].tolist() == [0, 1]
    assert "finishing this outer step" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    whole = small(steps=9, folder=tmp_path)
    assert not whole.interrupted
    assert equal(whole.theta, small(steps=9).theta)


@pytest.mark.usefixtures("heard_interrupts")
def test_a_second_ctrl_c_is_a_keyboard_interrupt(capfd) -> None:
    with pytest.raises(KeyboardInterrupt):
        small(steps=9, callbacks=[Interrupter(2)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_in_a_thread() -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(small(steps=2)))
    thread.start()
    thread.join()
    assert len(results[0].history) == 2


# what is refused


def built_estimator() -> PES:
    family = Quadratic()
    return PES(Unroll(family, make_adam(spec_of(family))), Constant(4), **SMALL)


BAD = {
    "task class": ({"task": Quadratic}, TypeError, "task .* class Quadratic; call it"),
    "module": ({"task": nn.Linear(2, 2)}, TypeError, "task .* Linear; tasks.ModuleTask"),
    "no task": ({"task": {}}, ValueError, "task must hold at least one task family, got none"),
    "twice": ({"task": [Quadratic(), Quadratic()]}, ValueError, "two tasks are called 'quadr"),
    "torch": ({"optimizer": torch.optim.Adam}, TypeError, "optimizer .* MetaOptimizer.* Adam"),
    "text": ({"optimizer": "unf"}, TypeError, "optimizer must be a constructor .* 'unf'"),
    "built": (
        {"optimizer": make_adam(spec_of(Quadratic()))},
        TypeError,
        "optimizer must be a constructor .* HandDesigned that is built already",
    ),
    "unknown argument": (
        {"optimizer": partial(UNFOptimizer, chanels=4)},
        TypeError,
        "optimizer cannot be called .* chanels",
    ),
    "value": ({"optimizer": partial(UNFOptimizer, channels=0)}, ValueError, "channels must be"),
    "not one": ({"optimizer": lambda spec: 3}, TypeError, "optimizer must make a MetaOptimizer"),
    "built estimator": (
        {"estimator": built_estimator()},
        TypeError,
        "estimator must be a constructor .* PES that is built already",
    ),
    "bare estimator": ({"estimator": PES}, TypeError, "estimator cannot be called .*num_tasks"),
    "sigma": ({"estimator": partial(PES, **{**SMALL, "sigma": -1})}, ValueError, "sigma must be"),
    "zero steps": ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    "half a step": ({"steps": 2.5}, TypeError, "steps must be a whole number, got 2.5"),
    "short horizon": ({"horizon": 1}, ValueError, "horizon .* unroll_length .* 2, got 1"),
    "horizon of another": ({"horizon": {"mlp": 4}}, ValueError, "horizon .* missing: quadratic"),
    "seed": ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    "outer": (
        {"outer_optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))])},
        TypeError,
        "outer_optimizer must be a constructor .* SGD that is built already",
    ),
    "callback": ({"callbacks": [print]}, TypeError, r"callbacks\[0\] must be a lightning.Callback"),
    "logger": ({"logger": "csv"}, TypeError, "logger must be a Lightning logger"),
    "truncation": ({"truncation": 4}, TypeError, "truncation must be a Truncation"),
    "clip": ({"gradient_clip": 0}, ValueError, "gradient_clip must be positive, got 0"),
    "device": ({"device": "gpu"}, ValueError, "device must be auto, cpu or cuda, got 'gpu'"),
    "precision": ({"precision": "half"}, ValueError, "precision must be one of"),
    "two spaces": (
        {"task": {"a": FAMILIES["mlp"](), "b": Quadratic()}, "optimizer": UNF},
        ValueError,
        "optimizer UNFOptimizer cannot go from task a to task b",
    ),
    "blocks": ({"blocks": {"*": 0.1}}, TypeError, "blocks must map each block to its settings"),
    "block of nothing": (
        {"blocks": {"equivariant": {}, "*": {}}},
        ValueError,
        "equivariant",
    ),
    "half of theta": ({"blocks": {"scalars": {}}}, ValueError, "blocks must take every tensor"),
    "setting of a block": ({"blocks": {"*": {"lr": -1}}}, ValueError, "Invalid learning rate"),
    "schedule of no block": (
        {"schedule": partial(block_schedule, factors={"*": After(1)}), "outer_optimizer": ADAMW},
        ValueError,
        "factors of the schedule must be of the outer optimizer's blocks",
    ),
    "folder for a function": (
        {"optimizer": make_adam, "folder": "here"},
        ValueError,
        "cannot be written to a folder: optimizer must be a MetaOptimizer class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_one_sentence(case, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_described_is_trained_and_refused_at_save(tmp_path, caplog) -> None:
    result = small(optimizer=make_adam, steps=1)
    with pytest.raises(ValueError, match="optimizer must be a MetaOptimizer class"):
        result.save(tmp_path / "theta")
    assert not (tmp_path / "theta").exists()
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "cannot be written to a folder" in record.getMessage()


def test_an_estimator_of_a_users_own_with_two_methods() -> None:
    class Once(GradientEstimator):
        def __init__(self, unroll, truncation) -> None:
            self.inner = NRES(unroll, truncation, noise_period=2, **SMALL)

        @override
        def init_state(self, theta, generator):
            return self.inner.init_state(theta, generator)

        @override
        def estimate(self, theta, state, generator):
            return self.inner.estimate(theta, state, generator)

    assert len(small(estimator=Once, steps=2).history) == 2

"""Callbacks as the configs hold them: their list, their order, and one of a user's own."""

import sys
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from learned_opt.commands import train
from learned_opt.compose import config_files
from learned_opt.compose.meta_training import build_callbacks
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.gauges import Gauges, num_restarts
from learned_opt.training.callbacks.signal_to_noise import SignalToNoise
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.callbacks.validation import Validation
from learned_opt.training.checkpoint_files import read
from tests.commands.test_cli import TINY
from tests.training.test_trainer import fit, make_module

CONFIGS = Path(config_files.config_dir())
OF_A_USER = """
from lightning.pytorch.callbacks import Callback

class Count(Callback):
    def __init__(self, start):
        self.count = start

    def on_train_batch_end(self, trainer, pl_module, *_, **__):
        self.count += 1
        with open(f"{trainer.default_root_dir}/count", "w") as file:
            file.write(f"{self.count} {len(pl_module.theta)}")
"""


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", overrides=["+task=mlp", *overrides])


def test_each_file_of_the_folder_is_one_callback_of_a_run() -> None:
    names = set(config_files.options("callbacks")) - {"default"}
    assert set(composed("+debug=profile").callbacks) == names
    assert set(composed().callbacks) == names - {"profile"}
    for name in names:
        node = OmegaConf.load(CONFIGS / "callbacks" / f"{name}.yaml")
        assert list(node) == [name]
        assert node[name]._target_.split(".")[-2] == name, "the Python file has the same name"


def test_the_order_is_that_in_which_they_act() -> None:
    names = list(composed().callbacks)
    # a clock that starts when the checkpoint is written and stops before the others start
    assert names[:2] == ["checkpoints", "throughput"]
    # a checkpoint is written before what a signal asks for is done
    assert names.index("checkpoints") < names.index("signals")
    # a recipe is there even where a later callback ends the run
    assert names.index("replay") < names.index("agreement")
    kinds = [type(callback).__name__ for callback in build_callbacks(composed().callbacks)]
    assert kinds[:3] == ["Checkpoints", "Throughput", "ReplayRecipes"]


def test_settings_come_from_the_command_line_and_callbacks_can_be_left_out() -> None:
    cfg = composed("callbacks.validation.every=7", "~callbacks.gauges")
    callbacks = build_callbacks(cfg.callbacks)
    (validation,) = [callback for callback in callbacks if isinstance(callback, Validation)]
    assert validation.every == 7
    assert not any(isinstance(callback, Gauges) for callback in callbacks)


def test_a_folder_of_a_user_adds_one_by_a_yaml(tmp_path) -> None:
    (tmp_path / "callbacks").mkdir()
    node = "mine:\n  _target_: lightning.pytorch.callbacks.Timer\n"
    (tmp_path / "callbacks" / "mine.yaml").write_text(node)
    cfg = composed("callbacks=[default,mine]", f"hydra.searchpath=[file://{tmp_path}]")
    assert list(cfg.callbacks) == [*composed().callbacks, "mine"]
    assert type(build_callbacks(cfg.callbacks)[-1]).__name__ == "Timer"


def test_what_is_no_callback_is_refused() -> None:
    nodes = OmegaConf.create({"mine": {"_target_": "builtins.dict"}})
    with pytest.raises(ValueError, match=r"callbacks.mine must be a Lightning callback, got dict"):
        build_callbacks(nodes)


def test_a_callback_of_a_user_is_a_module_and_a_word(tmp_path, monkeypatch) -> None:
    (tmp_path / "of_a_user.py").write_text(OF_A_USER)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["+callbacks.mine._target_=of_a_user.Count", "+callbacks.mine.start=10"]
    words += ["meta_optimizer=sgdm", "benchmark=none"]
    run = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["learned_opt", "+task=mlp", *TINY, *words, f"hydra.run.dir={run}"]
    )
    train.main()
    count, num_theta = (run / "count").read_text().split()
    assert int(count) == 10 + 4
    assert int(num_theta) > 0


def test_the_keys_of_their_state_in_checkpoints_stay(tmp_path) -> None:
    """They are class names; with others, checkpoints of earlier versions would lose this state."""
    callbacks = (Throughput(), SignalToNoise(0.9), StopWhenNothingIsFinite(5))
    fit(make_module("sgdm"), tmp_path, *callbacks, steps=2)
    states = read(tmp_path / "checkpoints" / "step_2.ckpt")["callbacks"]
    assert {name: set(state) for name, state in states.items()} == {
        "Throughput": {"seconds"},
        "SignalToNoise": {"gradient", "square", "weight", "squared_weight"},
        "StopWhenNothingIsFinite": {"in_a_row"},
    }


def test_all_but_the_leader_validate_nothing() -> None:
    trainer = SimpleNamespace(global_step=3, max_steps=3, is_global_zero=False)
    figures: dict[str, float] = {}
    trainer.callback_metrics = figures
    Validation(every=1).on_train_batch_end(trainer, None)  # pyright: ignore[reportArgumentType]
    assert figures == {}


def test_a_module_of_another_kind_is_refused() -> None:
    trainer = SimpleNamespace(global_step=3, max_steps=3, is_global_zero=True)
    with pytest.raises(TypeError, match=r"works on a MetaTrainer, got LightningModule"):
        Validation(every=1).on_train_batch_end(trainer, lightning.LightningModule())


def test_a_state_without_horizons_counts_no_restarts() -> None:
    assert num_restarts(None) == 0
    assert num_restarts({"mine": 3}) == 0


def test_the_start_removes_what_a_kill_has_left(tmp_path) -> None:
    (tmp_path / "metrics.csv.17-4.partial").write_text("step,lo")
    fit(make_module("sgdm"), tmp_path, steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]

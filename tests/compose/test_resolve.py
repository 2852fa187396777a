"""The final config: lists from their folders, read-only, and new configs in place of changes."""

import pytest
from hydra import compose
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from learned_opt.compose import config_files, resolve
from tests.compose.test_configs import CONFIGS, composed, final

# what benchmark=all and lab have compared since these results are published
BASELINES = """sgdm adam sgd nesterov rmsprop adagrad adam_cosine adamw nadamw radam adafactor lion
lamb muon schedule_free_adamw shampoo soap muon_cosine soap_cosine"""
LAB_CASES = {"bptt_truncated", "es", "es_truncated", "pes", "gpes", "nres"}


def test_all_baselines_are_those_of_the_folder_as_they_stand_there() -> None:
    cfg = final("+task=mlp", "benchmark=all", name="evaluate")
    assert set(cfg.benchmark.baselines) >= set(BASELINES.split())
    assert set(cfg.benchmark.baselines) <= set(config_files.options("meta_optimizer"))
    assert "torch_optim" not in cfg.benchmark.baselines  # it needs the path of a class
    words = [f"+meta_optimizer@alone.{name}={name}" for name in cfg.benchmark.baselines]
    alone = composed("+task=mlp", *words).alone
    assert OmegaConf.to_container(cfg.benchmark.baselines, resolve=True) == OmegaConf.to_container(
        alone, resolve=True
    )


def test_a_baseline_can_be_changed_and_left_out_and_added() -> None:
    words = ["+benchmark.baselines.lamb=null", "+benchmark.baselines.muon.lr=3.0"]
    words.append("+meta_optimizer@benchmark.baselines.slow=adamw")
    baselines = final("+task=unseen", "benchmark=all", *words, name="evaluate").benchmark.baselines
    assert "lamb" not in baselines
    assert baselines.muon.lr == 3.0
    assert baselines.muon.rule == final("+task=mlp", "benchmark=all").benchmark.baselines.muon.rule
    assert baselines.slow == baselines.adamw


def test_a_baseline_of_the_users_own_is_among_all(tmp_path) -> None:
    (tmp_path / "meta_optimizer").mkdir()
    mine = "defaults:\n  - adam\n  - _self_\nlr: 0.5\n"
    (tmp_path / "meta_optimizer" / "mine.yaml").write_text(mine)
    search_path = create_config_search_path(str(CONFIGS))
    search_path.prepend("user", f"file://{tmp_path}")  # as --config-dir does
    Hydra.create_main_hydra2("test", search_path)
    try:
        cfg = compose("config", ["+task=mlp", "benchmark=all"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        assert resolve.final(cfg).benchmark.baselines.mine.lr == 0.5
    finally:
        GlobalHydra.instance().clear()


def test_lab_cases_are_the_files_of_the_folder() -> None:
    cfg = final("+task=mlp", "+cases.es.num_tasks=3", name="lab")
    assert set(cfg.cases) >= LAB_CASES
    assert {name.removesuffix("_truncated") for name in cfg.cases} == set(
        config_files.options("estimator")
    )
    lengths = {name: node.unroll_length for name, node in cfg.cases.items()}
    whole = ("es", "es_control", "guided_es", "inverse_variance")  # take the horizon as it is
    assert lengths == dict.fromkeys(lengths, 15) | dict.fromkeys(whole, 60)
    assert (cfg.cases.es.num_tasks, cfg.cases.es_truncated.num_tasks) == (3, 16)
    again = final("+task=mlp", "estimator@reference=es", name="lab")
    assert {"bptt", "bptt_truncated", "es_truncated"} <= set(again.cases)
    assert "es" not in again.cases  # the reference is not measured twice


def test_a_final_config_is_read_only_and_stays_as_it_is() -> None:
    cfg = final("+task=mlp", "benchmark=all")
    with pytest.raises(ReadonlyConfigError):
        cfg.estimator.num_tasks = 3
    assert resolve.final(cfg) == cfg  # no Hydra is asked again


def test_another_meta_optimizer_is_another_config() -> None:
    cfg = final("+task=mlp")
    other = resolve.with_meta_optimizer(cfg, {"_target_": "x.Y", "size": 3}, "y")
    assert other.meta_optimizer == {"_target_": "x.Y", "size": 3}
    assert other.optimizer_name == "y"
    assert cfg.meta_optimizer["_target_"] != "x.Y"


def test_the_number_that_auto_stands_for_is_put_everywhere() -> None:
    cfg = final("+task=mix", "estimator.num_tasks=auto", "mix.rnn.estimator.num_tasks=auto")
    sized = resolve.with_num_tasks(cfg, 4)
    assert (sized.estimator.num_tasks, sized.mix.rnn.estimator.num_tasks) == (4, 4)
    assert cfg.estimator.num_tasks == "auto"
    assert not resolve.says_auto(sized)
    assert resolve.with_num_tasks(sized, 8).estimator.num_tasks == 4


def test_the_config_of_a_run_is_saved_as_it_is_used(tmp_path) -> None:
    cfg = final("+task=mlp", "benchmark=all")
    resolve.save(cfg, tmp_path)
    saved = OmegaConf.load(tmp_path / ".hydra" / "config.yaml")
    assert saved.benchmark.baselines == cfg.benchmark.baselines

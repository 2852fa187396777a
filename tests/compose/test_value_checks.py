"""Values of a config that no constructor could mean are refused under the key that was written."""

import copy

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt.commands import train
from learned_opt.compose.value_checks import check_values
from learned_opt.core.errors import UsageError
from tests.commands.test_cli import TINY, refused
from tests.compose.test_configs import composed


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return composed("+task=mlp")


def parsed(word: str) -> tuple[str, object]:
    """Key and value of a word of the command line."""
    key, _, text = word.partition("=")
    return key, OmegaConf.create(f"value: {text}").value


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("estimator.sigma=.nan", "estimator.sigma must be a finite number, got nan."),
        ("estimator.num_tasks=1e9", "estimator.num_tasks must be a whole number, got"),
        ("horizon=1e3", "horizon must be a whole number, got 1000.0. Write 1000."),
        ("horizon=2.5", "horizon must be a whole number, got 2.5."),
        ("horizon=0", "horizon must be from 1 to 1000000000, got 0."),
        ("seed=abc", "seed must be a whole number, got 'abc'."),
        ("seed=1.5", "seed must be a whole number, got 1.5."),
        ("seed=-1", "seed must be from 0 to 9223372036854775807, got -1."),
        ("seed=99999999999999999999", "got 99999999999999999999. The largest is 922337"),
        ("task.batch_size=99999999999999999999", "The largest is 9223372036854775807."),
        ("network.hidden_sizes=[99999999999999999999]", "must be a list, each a whole number"),
        ("compile=maybe", "compile must be true or false, got 'maybe'."),
        ("weight=.inf", "weight must be a finite number, got inf."),
        ("task.name=null", "task.name must be text, got null."),
        ("data._target_=tasks.data.text.docs_text", "data must be one of: cifar10, digits, fash"),
        ("task.batch_size=abc", "task.batch_size must be a whole number, got 'abc'."),
        ("learned.alpha=.nan", "learned.alpha must be a finite number, got nan."),
        ("outer_optimizer.optimizer.lr=abc", "outer_optimizer.optimizer.lr must be a finite numb"),
        ("network.hidden_sizes=3", "network.hidden_sizes must be a list, got 3."),
        ("network.hidden_sizes=[a]", "network.hidden_sizes must be a list, each a whole number"),
        ("perturbation.factors={a: .nan}", "a mapping, each value a finite number"),
        ("benchmark.tuned_for=mean_loss", "benchmark.tuned_for must be a list, got 'mean_loss'"),
        ("callbacks.checkpoints.every=null", "callbacks.checkpoints.every must be a whole number"),
        ("benchmark.baselines.adam.rule=x", "benchmark.baselines.adam.rule must be a node with a"),
        ("benchmark.baselines.adam=5", "benchmark.baselines must be a mapping, each value a node"),
        ("estimator.meta_loss=null", "estimator.meta_loss must be a node with a _target_"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(config, word, message) -> None:
    HydraConfig.instance().set_config(config)  # whatever another test has left
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, *parsed(word), merge=False)
    with pytest.raises(UsageError) as refusal:
        check_values(changed)
    assert message in str(refusal.value)


def test_auto_and_optional_values_pass() -> None:
    check_values(composed("+task=mlp", "estimator.num_tasks=auto", "benchmark.archive=null"))


def test_what_cannot_be_read_is_left_to_hydra() -> None:
    check_values(OmegaConf.create({"node": {"_target_": "nowhere.Thing", "size": "x"}}))


def test_a_value_out_of_range_keeps_its_key(monkeypatch, capsys, tmp_path) -> None:
    words = ["+task=mlp", *TINY, "estimator.sigma=1e-30"]
    error = refused(monkeypatch, capsys, tmp_path, train.main, *words)
    assert "sigma must be from 1e-06 to 1000.0, got 1e-30." in error

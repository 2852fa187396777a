"""Every YAML: targets import, keys are parameters, tasks and groups compose, no key is dead."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.compose.mixture import task_configs
from learned_opt.core import errors, tree
from learned_opt.symmetry import PermutationSpec
from tasks.networks.mlp import MLP

CONFIGS = Path(config_files.config_dir())
GROUPS = (
    "network",
    "data",
    "meta_optimizer",
    "estimator",
    "perturbation",
    "meta_loss",
    "truncation",
)
GROUPS = (*GROUPS, "outer_optimizer", "trainer", "callbacks", "logger", "benchmark", "augment")
HYDRA_KEYS = {"_target_", "_partial_"}
SUPPLIED = {"save_dir"}  # by build.py


def composed(*overrides: str, name: str = "config") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def nodes(cfg: object, path: str = ""):
    """All nodes with a target, and their paths."""
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg:
            yield path, cfg
        for key in cfg:
            if key != "hydra" and not OmegaConf.is_missing(cfg, key):
                yield from nodes(cfg[key], f"{path}.{key}".lstrip("."))


def check_nodes(cfg: DictConfig) -> int:
    found = list(nodes(cfg))
    for path, node in found:
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        unknown = set(node) - HYDRA_KEYS - set(parameters)
        assert takes_any or not unknown, (
            f"{path}: {sorted(unknown)} are no parameters of {node['_target_']}"
        )
    return len(found)


@pytest.mark.parametrize("task", config_files.options("task"))
def test_tasks_compose_and_their_nodes_fit(task) -> None:
    for own in task_configs(composed(f"+task={task}"), [], []).values():
        assert check_nodes(own) > 8


@pytest.mark.parametrize(
    ("group", "choice"), [(g, c) for g in GROUPS for c in config_files.options(g)]
)
def test_every_choice_of_every_group_composes(group, choice) -> None:
    cfg = composed("+task=mlp", f"{group}={choice}")
    assert check_nodes(cfg) > 8
    assert HydraConfig.get().runtime.choices[group] == choice


@pytest.mark.parametrize("schedule", config_files.options("schedule"))
def test_schedules_compose(schedule) -> None:
    cfg = composed(
        "+task=mlp", "meta_optimizer=adam", f"schedule@meta_optimizer.schedule={schedule}"
    )
    assert check_nodes(cfg) > 8
    assert instantiate(cfg.meta_optimizer.schedule)(torch.tensor(3.0)) <= 1


@pytest.mark.parametrize("name", ["evaluate", "bench", "lab", "contest"])
def test_other_entry_points_compose(name) -> None:
    assert check_nodes(composed("+task=cnn", name=name)) > 8


def test_bench_of_deployed_optimizers_composes() -> None:
    cfg = composed(name="bench_deploy")
    tied = 4  # the optimizer, its trunk, its head and its nominal part; the pointwise ones name their head alone
    assert check_nodes(cfg) == len(cfg.networks) + tied + 2 * (len(cfg.learned) - 1)


def test_bench_of_networks_composes() -> None:
    cfg = composed(name="bench_networks")
    assert check_nodes(cfg) == 2 * len(cfg.cases)


@pytest.mark.parametrize("experiment", config_files.options("experiment"))
def test_experiments_compose_and_start_with_their_question(experiment) -> None:
    cfg = composed(f"+experiment={experiment}")
    assert check_nodes(cfg) > 8
    assert HydraConfig.get().runtime.choices["experiment"] == experiment
    header = (CONFIGS / f"experiment/{experiment}.yaml").read_text().splitlines()[1:]
    assert header[0].startswith("# Question: ")
    assert any(line.startswith("# Measured: ") for line in header)


@pytest.mark.parametrize(
    ("experiment", "optimizer", "count"),
    [
        ("unf_mlp_fashion", "unf_paper", 3_783),
        ("unf_mlp_fashion", "nfn", 3_783),
        ("unf_mlp_fashion", "deep_set", 2_788),
    ],
)
def test_experiments_have_the_published_sizes(experiment, optimizer, count) -> None:
    cfg = composed(f"+experiment={experiment}", "+scale=paper", f"meta_optimizer={optimizer}")
    spec = PermutationSpec(*MLP((1, 8, 8), 10, cfg.network.hidden_sizes).permutation_axes())
    theta = dict(instantiate(cfg.meta_optimizer)(spec).named_parameters())
    assert tree.num_elements(theta) == count
    assert theta["log_alpha"].exp().item() == pytest.approx(0.1)
    assert theta["log_beta"].exp().item() == pytest.approx(1e-3)


@pytest.mark.parametrize("zoo", config_files.options("zoo"))
@pytest.mark.parametrize("verb", ["build", "predict"])
def test_zoos_compose(zoo, verb) -> None:
    assert check_nodes(composed(f"zoo={zoo}", f"verb={verb}", name="zoo")) > 8


@pytest.mark.parametrize("predictor", config_files.options("predictor"))
def test_predictors_compose(predictor) -> None:
    assert (
        check_nodes(composed("verb=predict", f"predictor@predictors.unf={predictor}", name="zoo"))
        > 8
    )


def test_every_yaml_is_reached() -> None:
    """No file lies outside of the groups that the tests above walk."""
    files = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    groups = (*GROUPS, "schedule", "task", "experiment", "scale", "zoo", "predictor", "card")
    groups = (*groups, "hydra/launcher", "hydra/sweeper")  # of tests/test_launcher.py
    reached = {
        f"{group}/{choice}.yaml" for group in groups for choice in config_files.options(group)
    }
    entry_points = {"evaluate", "bench", "bench_networks", "bench_deploy", "contest", "lab", "zoo"}
    assert files == reached | {"config.yaml", *(f"{name}.yaml" for name in entry_points)}


def test_no_top_level_key_is_dead() -> None:
    """Each key is read by name in the entry points, or is referred to by another key."""
    code = "".join(
        (Path(cli.__file__).parent / f"{name}.py").read_text()
        for name in ("build", "training", "sizing", "train", "evaluate")
    )
    text = "".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))
    for key in OmegaConf.load(CONFIGS / "config.yaml"):
        if key not in ("defaults", "hydra"):
            assert re.search(rf"\b(cfg|own)\.{key}\b", code) or re.search(
                rf"\${{{key}[.}}]", text
            ), key


def test_command_line_wins_over_the_task_file() -> None:
    cfg = composed("+task=mlp", "network=cnn", "data=cifar10", "data.root=somewhere")
    assert cfg.task.network["_target_"] == "tasks.networks.cnn.CNN"
    assert cfg.task.data.root == "somewhere"
    assert cfg.task.data.name == "cifar10"


def test_a_mix_gives_each_task_the_config_that_it_would_have_alone() -> None:
    words = [
        "+task=mix",
        "estimator=es",
        "horizon=30",
        "estimator.num_tasks=3",
        "mix.cnn.task.batch_size=7",
    ]
    words += [
        "+mix.rnn.horizon=20",
        "+task@mix.fashion=mlp",
        "data@mix.fashion.data=fashion_mnist",
        "~mix.mlp",
    ]
    cfg = composed(*words)
    groups = list(HydraConfig.get().runtime.choices)
    own = task_configs(cfg, words, groups)
    assert list(own) == ["cnn", "rnn", "fashion"]
    alone = composed("+task=cnn", "task.batch_size=7", "network.channels=[8,16]")
    assert own["cnn"].task == alone.task
    assert [c.task.data["_target_"].split(".")[-1] for c in own.values()] == [
        "digits",
        "docs_text",
        "images",
    ]
    assert [c.estimator.num_tasks for c in own.values()] == [3, 3, 3]  # the rnn's file says 8
    assert [c.benchmark.num_chains for c in own.values()] == [16, 16, 16]
    assert [c.horizon for c in own.values()] == [30, 30, 30]  # the command line speaks of all tasks
    assert [c.horizon for c in task_configs(cfg, words[-4:], groups).values()] == [30, 20, 30]
    assert (
        own["rnn"].estimator.unroll_length == 30
    )  # interpolations are those of the task's own config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["+task=mix", "~mix.mlp", "~mix.cnn", "~mix.rnn"],
            "mix must hold at least one task, got none.",
        ),
        (["+task=mix", "+mix.gru.horizon=3"], "mix.gru has no task; add +task@mix.gru=NAME"),
        (["+task=mlp", "+task@mix.cnn=cnn"], "there is one beside it, under task."),
    ],
)
def test_a_mix_that_is_none_is_refused(words, message) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(message)):
        task_configs(composed(*words), words, [])


def test_one_dial_sets_the_horizon_everywhere() -> None:
    cfg = composed("+task=mlp", "horizon=77")
    assert instantiate(cfg.truncation).horizon == cfg.benchmark.horizon == 77
    assert composed("+task=mlp", "horizon=77", "estimator=es").estimator.unroll_length == 77

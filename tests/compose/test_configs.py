"""Every YAML: targets import, keys are parameters, tasks and groups compose, no key is dead."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.commands import help_pages
from learned_opt.compose import config_files, resolve
from learned_opt.compose.mixture import task_configs
from learned_opt.compose.value_checks import check_values
from learned_opt.core import tree
from learned_opt.core.errors import UsageError
from learned_opt.symmetry import PermutationSpec
from tasks.networks.mlp import MLP

CONFIGS = Path(config_files.config_dir())
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_"}
# whose nodes stand elsewhere than at the name of their group, and the tests that compose them
ELSEWHERE = {
    "debug": "test_debug_values_are_those_of_every_task",
    "card": "test_every_point_of_every_card_fits_its_task",
    "meta_optimizer": "test_meta_optimizers_compose",
    "experiment": "test_experiments_compose_and_start_with_their_question",
    "predictor": "test_predictors_compose",
    "scale": "test_experiments_have_the_published_sizes",
    "schedule": "test_schedules_compose",
    "task": "test_tasks_compose_and_their_nodes_fit",
    "zoo": "test_zoos_compose",
    "hydra/launcher": "test_every_launcher_is_known_to_hydra",
    "hydra/sweeper": "test_the_sweeper_searches_what_the_config_has",
}
# groups whose choices say nothing of each other, so that one config has one of each
SIDE_BY_SIDE = ("network", "estimator", "callbacks", "outer_optimizer")
SIDE_BY_SIDE += ("perturbation", "logger", "truncation", "trainer", "meta_loss", "augment")
ROUNDS: list[dict[str, str]] = []  # group -> choice; every choice of every group that a run has
for each_group in SIDE_BY_SIDE:
    for number, each_choice in enumerate(config_files.options(each_group)):
        if number == len(ROUNDS):
            ROUNDS.append({})
        ROUNDS[number][each_group] = each_choice
for each_group in config_files.groups():
    if each_group not in ELSEWHERE and each_group not in SIDE_BY_SIDE:
        ROUNDS += [{each_group: choice} for choice in config_files.options(each_group)]


def composed(*overrides: str, name: str = "config") -> DictConfig:
    """As Hydra gives it to a command."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def final(*overrides: str, name: str = "config") -> DictConfig:
    """As a command has it from then on."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return resolve.final(cfg)


def nodes(cfg: object, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """All nodes with a target, and their paths."""
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg:
            yield path, cfg
        for key in cfg:
            if key != "hydra" and not OmegaConf.is_missing(cfg, key):
                yield from nodes(cfg[key], f"{path}.{key}".lstrip("."))


def check_nodes(cfg: DictConfig) -> int:
    is_final = OmegaConf.is_readonly(cfg)
    if not is_final:  # one that is has been checked
        check_values(cfg)
    targets = list(nodes(cfg))
    for path, node in targets:
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        unknown = set(node) - HYDRA_KEYS - set(parameters)
        assert takes_any or not unknown, (
            f"{path}: {sorted(unknown)} are no parameters of {node['_target_']}"
        )
    return len(targets)


@pytest.mark.parametrize("task", config_files.options("task"))
def test_tasks_compose_and_their_nodes_fit(task) -> None:
    for task_config in task_configs(final(f"+task={task}"), [], []).values():
        assert check_nodes(task_config) > 8


def of_a_task_that_takes(data: str) -> DictConfig:
    """The config of the first task for which data are of the right kind."""
    tasks = ["mlp", "rnn", *config_files.options("task")]
    # first those that have these data by default
    tasks.sort(key=lambda task: data not in (CONFIGS / f"task/{task}.yaml").read_text())
    for task in tasks:
        try:
            return final(f"+task={task}", f"data={data}")
        except (UsageError, ConfigCompositionException):
            continue  # that task reads data of another kind, or of several kinds
    raise AssertionError(f"no task takes {data}")


@pytest.mark.parametrize("choices", ROUNDS, ids=lambda choices: "-".join(choices.values()))
def test_every_choice_of_every_group_composes(choices) -> None:
    if "data" in choices:
        cfg = of_a_task_that_takes(choices["data"])
    else:
        cfg = final("+task=mlp", *(f"{group}={choice}" for group, choice in choices.items()))
    assert check_nodes(cfg) > 8
    chosen = HydraConfig.get().runtime.choices
    assert {group: chosen[group] for group in choices} == choices


def test_meta_optimizers_compose() -> None:
    """All in one config, which is quicker than a config for each."""
    names = config_files.options("meta_optimizer")
    cfg = composed("+task=mlp", *(f"+meta_optimizer@each.{name}={name}" for name in names))
    assert check_nodes(cfg.each) > 2 * len(names)
    assert list(cfg.each) == names


@pytest.mark.parametrize("schedule", config_files.options("schedule"))
def test_schedules_compose(schedule) -> None:
    cfg = composed(
        "+task=mlp", "meta_optimizer=adam", f"schedule@meta_optimizer.schedule={schedule}"
    )
    assert check_nodes(cfg) > 8
    assert instantiate(cfg.meta_optimizer.schedule)(torch.tensor(3.0)) <= 1


@pytest.mark.parametrize("name", config_files.primaries())
def test_every_config_of_a_verb_composes(name) -> None:
    assert name in help_pages.CONFIGS.values()
    is_of_a_run = (CONFIGS / f"{name}.yaml").read_text().count("\n  - config\n") or name == "config"
    words = ["+task=cnn"] if is_of_a_run and name != "zoo" else []
    words += ["verb=build"] if name == "zoo" else []
    assert check_nodes(final(*words, name=name)) > 8


def test_bench_of_deployed_optimizers_composes() -> None:
    cfg = composed(name="bench_deploy")
    heads = [name for name, node in cfg.learned.items() if "head" in node]
    assert heads == ["deep_set_8", "deep_set_16", "deep_set_32"]
    assert check_nodes(cfg) == len(cfg.networks) + len(cfg.learned) + len(heads)


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
    """No file lies outside of the groups and the configs that the tests above walk."""
    files = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    reached = {f"{name}.yaml" for name in config_files.primaries()}
    for group in config_files.groups():
        reached |= {f"{group}/{choice}.yaml" for choice in config_files.options(group)}
    assert files == reached


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_tests_of_the_other_groups_are_there(test) -> None:
    texts = [path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")]
    assert any(f"def {test}(" in text for text in texts)


@pytest.mark.parametrize("name", config_files.primaries())
def test_no_top_level_key_is_dead(name) -> None:
    """Each key is read by name where configs are known, or another key refers to it."""
    package = Path(help_pages.__file__).parents[1]
    code = ""
    for folder in ("commands", "compose"):
        code += "".join(path.read_text() for path in (package / folder).glob("*.py"))
    text = "".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))
    for key in OmegaConf.load(CONFIGS / f"{name}.yaml"):
        is_read = re.search(rf"(cfg|config)\.{key}\b|\"{key}\"", code)
        is_referred_to = re.search(rf"\${{{key}[.}}]", text)
        assert key in ("defaults", "hydra") or is_read or is_referred_to, key


def test_command_line_wins_over_the_task_file() -> None:
    cfg = composed("+task=mlp", "network=cnn", "data=cifar10", "data.root=somewhere")
    assert cfg.task.network["_target_"] == "tasks.networks.cnn.CNN"
    assert cfg.task.data.root == "somewhere"
    assert cfg.task.data.name == "cifar10"


def test_one_dial_sets_the_horizon_everywhere() -> None:
    cfg = composed("+task=mlp", "horizon=77")
    assert instantiate(cfg.truncation).horizon == cfg.benchmark.horizon == 77
    assert composed("+task=mlp", "horizon=77", "estimator=es").estimator.unroll_length == 77

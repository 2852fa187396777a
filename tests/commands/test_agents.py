"""The recipe for agents of W&B in docs/sweeps.md: what an agent makes of it is accepted."""

import re
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from learned_opt.commands import cli
from learned_opt.commands.words import as_hydra_reads, check_words
from tests.compose.test_configs import composed

PAGE = Path(cli.__file__).parents[2] / "docs" / "sweeps.md"
CHOSEN = {"outer_optimizer.optimizer.lr": 0.0123, "seed": 2}  # by the server


def recipe() -> dict:
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])


@pytest.mark.parametrize("macro", ["args_no_hyphens", "args"])
def test_the_words_of_an_agent_are_accepted(macro) -> None:
    arguments = {}
    for name, node in recipe()["parameters"].items():
        value = CHOSEN[name] if name in CHOSEN else node.get("value", node.get("values", [""])[0])
        arguments[name] = {"value": value}
    words = create_sweep_command_args({"args": arguments})[macro]
    assert ("seed=2" if macro == "args_no_hyphens" else "--seed=2") in words

    read = as_hydra_reads(words)
    check_words(read)
    cli.check_task_given(read)
    cfg = composed(*read)
    assert (cfg.seed, cfg.task.name) == (2, "mlp")
    assert cfg.outer_optimizer.optimizer.lr == 0.0123
    assert "wandb" in cfg.logger


def test_the_recipe_runs_the_program_with_words_without_hyphens() -> None:
    command = recipe()["command"]
    assert command[1:] == ["python", "-m", "${program}", "${args_no_hyphens}"]
    assert recipe()["program"] == "learned_opt"
    assert recipe()["metric"] == {"name": "meta_loss/valid", "goal": "minimize"}

"""``print_config=true``: the composed config, and no secret."""

import io

import pytest
import yaml
from rich.console import Console

from learned_opt.compose import config_tree
from tests.compose.test_configs import final


def printed(*words: str, is_terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=60)
    config_tree.print_if_asked(final(*words, "print_config=true"), console)
    return file.getvalue()


def test_the_tree_is_yaml_with_values_and_without_secrets(monkeypatch) -> None:
    monkeypatch.setenv("LO_TOKEN", "SECRET")
    words = ["+task=mlp", "horizon=77", "+mine=${oc.env:LO_TOKEN}", "+other=a ${mine}"]
    text = printed(*words)
    values = yaml.safe_load(text)
    assert values["benchmark"]["horizon"] == values["truncation"]["horizon"] == 77
    assert values["task"]["network"]["_target_"] == "tasks.networks.mlp.MLP"
    assert (values["mine"], values["other"]) == ("${oc.env:LO_TOKEN}", "a ${oc.env:LO_TOKEN}")
    assert "SECRET" not in text + printed(*words, is_terminal=True)


@pytest.mark.parametrize("task", ["mix", "unseen"])
def test_a_mix_has_a_tree_too(task) -> None:
    values = yaml.safe_load(printed(f"+task={task}"))
    assert len(values["mix"]) > 2


def test_a_terminal_gets_colours_and_who_does_not_ask_nothing() -> None:
    assert "\x1b[" in printed("+task=mlp", is_terminal=True)
    file = io.StringIO()
    config_tree.print_if_asked(final("+task=mlp"), Console(file=file))
    assert not file.getvalue()

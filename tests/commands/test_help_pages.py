"""What help shows is true: its examples work, and its groups are the folders."""

import shlex
import sys

import pytest

from learned_opt.commands import (
    bench,
    collect,
    dashboard,
    examples,
    help_pages,
    replay,
    report,
    words,
    zoo,
)
from learned_opt.commands.cli import Parser
from learned_opt.compose import config_files
from tests.cases import others_slow
from tests.compose.test_configs import composed

PARSERS = {"replay": replay, "report": report, "collect": collect, "dashboard": dashboard}
KEYS_OF_WORDS = {"bench": bench._with_keys, "zoo": zoo._with_keys}
NUM_EXAMPLES = 5


class Parsed(Exception):
    """The words were accepted."""


def words_of(example: str, verb: str) -> list[str]:
    """The words of an example behind its verb, without comments and pipes."""
    typed = shlex.split(example.partition(" | ")[0], comments=True)
    return typed if verb == "train" else typed[len(verb.split()) :]


def first_of_sweep(word: str) -> str:
    """The first value of each that a sweep takes."""
    return word.split(",")[0] if "[" not in word and "{" not in word else word


COMPOSED_ONCE = ("train", "evaluate", "bench", "lab", "zoo")


@pytest.mark.parametrize("verb", others_slow(help_pages.CONFIGS, COMPOSED_ONCE))
def test_examples_compose(verb) -> None:
    assert len(examples.EXAMPLES[verb]) == NUM_EXAMPLES
    for example in examples.EXAMPLES[verb]:
        typed = words_of(example, verb)
        if typed[:1] in (["table"], ["networks"]):  # names folders; has a config of its own
            continue
        is_sweep = "-m" in typed
        read = words.as_hydra_reads(KEYS_OF_WORDS.get(verb, list)(typed))
        words.check_words(read)
        overrides = [first_of_sweep(word) if is_sweep else word for word in read if word != "-m"]
        assert "name" in composed(*overrides, name=help_pages.CONFIGS[verb]), example


@pytest.mark.parametrize("verb", PARSERS)
def test_examples_parse(monkeypatch, verb) -> None:
    parse = Parser.parse_args

    def stop(self: Parser) -> None:
        parse(self)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    assert len(examples.EXAMPLES[verb]) == NUM_EXAMPLES
    for example in examples.EXAMPLES[verb]:
        monkeypatch.setattr(sys, "argv", ["learned_opt", *words_of(example, verb)])
        with pytest.raises(Parsed):
            PARSERS[verb].run()


def test_every_verb_has_examples() -> None:
    assert set(help_pages.VERBS) | set(help_pages.CONFIGS) == set(examples.EXAMPLES)


def test_the_described_groups_are_the_folders() -> None:
    groups = [group for group in config_files.groups() if config_files.options(group)]
    assert sorted(help_pages.described_groups()) == groups
    for verbs, _ in help_pages.described_groups().values():
        assert verbs == "all" or set(verbs.split(", ")) <= set(help_pages.VERBS)


def test_a_page_has_the_groups_that_its_verb_takes() -> None:
    training = help_pages.page("train", [])
    assert "  estimator        how the meta-gradient is estimated\n" in training
    assert "bptt, es, es_control, gpes, guided_es," in training
    assert "\n  card " not in training
    assert "\n  card " in help_pages.page("evaluate", [])
    assert "Groups:" not in help_pages.page("bench", ["networks"])


def test_groups_of_a_user_are_listed(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("a: 1\n")
    monkeypatch.setattr(sys, "argv", ["learned_opt", f"--config-dir={tmp_path}"])
    assert "  mine\n                   one\n" in help_pages.page("train", [])

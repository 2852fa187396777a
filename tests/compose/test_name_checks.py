"""Names that a terminal, a file system, a plot or a page would read otherwise are refused."""

import pytest
from omegaconf import OmegaConf

from learned_opt.compose.name_checks import check_names
from learned_opt.core.errors import UsageError
from learned_opt.core.names import LONGEST, check_name
from tests.compose.test_configs import composed

RULE = "must be letters, digits, spaces or any of _.+-=()"


@pytest.mark.parametrize("name", ["mlp", "unf (lr=0.1)", "x2", "Größe-漢字", "a.b_c+d", "0"])
def test_a_name_that_means_itself_everywhere_is_allowed(name) -> None:
    check_name("task.name", name)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a ", "[/foo]", r"$\frac{$", "a/b", "a,b", "-a", "_a", "..", "a\nb", "a|b", "<b>"],
)
def test_all_else_is_one_sentence(name) -> None:
    with pytest.raises(ValueError, match="name must be letters, digits, spaces or any of"):
        check_name("task.name", name)


def test_a_name_fits_into_the_name_of_a_file() -> None:
    check_name("task.name", "x" * LONGEST)
    with pytest.raises(ValueError, match=f"at most {LONGEST} letters, got 300: 'x*\\.\\.\\.'"):
        check_name("task.name", "x" * 300)


def test_a_run_may_lie_deeper() -> None:
    check_name("name", "study/mlp", is_path=True)
    for name in ("../x", "a//b", "/a", "a/"):
        with pytest.raises(ValueError, match="name must be letters"):
            check_name("name", name, is_path=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task.name='[/foo]'"], f"task.name {RULE}, got '[/foo]'."),
        (["name=../elsewhere"], f"name {RULE}, got '../elsewhere'."),
        (["optimizer_name='a,b'"], f"optimizer_name {RULE}, got 'a,b'."),
    ],
)
def test_names_of_a_config_are_checked(words, sentence) -> None:
    with pytest.raises(UsageError) as error:
        check_names(composed("+task=mlp", *words))
    assert str(error.value) == sentence


@pytest.mark.parametrize("key", ["theta", "fixed", "mix", "benchmark.baselines"])
def test_keys_that_are_names_are_checked(key) -> None:
    cfg = OmegaConf.create({"name": "mlp", "benchmark": {}})
    OmegaConf.update(cfg, key, {"[b]": "x"})
    with pytest.raises(UsageError) as error:
        check_names(cfg)
    assert str(error.value) == f"a name in {key} {RULE}, got '[b]'."

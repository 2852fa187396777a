"""One config laid over another; the generalisation cards are in tests/evaluation."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from learned_opt.compose.overlay import lay_over, nested
from learned_opt.core.errors import UsageError


def base():
    return OmegaConf.create(
        {
            "network": {"_target_": "MLP", "sizes": [8, 4], "bias": True},
            "task": {"network": "${network}", "batch": 16},
            "rate": 0.5,
        }
    )


def test_the_config_below_stays_as_it_is_and_the_result_is_read_only() -> None:
    below = base()
    result = lay_over(below, {"rate": 0.25})
    assert (below.rate, result.rate) == (0.5, 0.25)
    with pytest.raises(ReadonlyConfigError):
        result.rate = 1
    with pytest.raises(ReadonlyConfigError):
        result.network.sizes.append(3)
    assert lay_over(result, {"rate": "x2"}).rate == 0.5


def test_interpolations_are_resolved_where_they_are_put() -> None:
    entry = OmegaConf.create({"network": {"_target_": "CNN"}, "task": {"network": "${network}"}})
    result = lay_over(base(), entry)
    assert result.task.network == {"_target_": "CNN"}
    assert result.task.batch == 16


def test_a_part_of_a_referred_node_becomes_a_copy() -> None:
    result = lay_over(base(), {"task": {"network": {"sizes": "x2"}}})
    assert result.task.network.sizes == [16, 8]
    assert result.task.network["_target_"] == "MLP"
    assert result.network.sizes == [8, 4]


def test_new_keys_are_refused_unless_they_are_allowed() -> None:
    with pytest.raises(UsageError, match=r"mix.a changes data.root, but the task has no such key"):
        lay_over(
            lay_over(base(), {"data": {}}, new_keys=True), {"data": {"root": 1}}, source="mix.a"
        )
    result = lay_over(base(), {"data": {"root": "there"}, "scale": "x2"}, new_keys=True)
    assert result.data.root == "there"
    assert result.scale == "x2"  # there is nothing to multiply


def test_what_is_still_to_be_given_hides_nothing() -> None:
    assert lay_over(base(), {"rate": "???"}).rate == 0.5


def test_a_dotted_key_as_changes() -> None:
    assert lay_over(base(), nested("network.sizes", [1])).network.sizes == [1]

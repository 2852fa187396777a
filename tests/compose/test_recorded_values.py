"""What comes from the environment is in no file."""

import pytest
from omegaconf import OmegaConf

from learned_opt.compose.recorded_values import recorded_values


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    monkeypatch.setenv("LO_TOKEN", "SECRET")
    monkeypatch.setenv("LO_LAYERS", "3")
    monkeypatch.setenv("LO_LIST", "[SECRET,b]")


def test_variables_have_names_wherever_their_text_ends_up() -> None:
    cfg = OmegaConf.create(
        {
            "token": "${oc.env:LO_TOKEN}",
            "other": {"header": "Bearer ${..token}", "list": ["${token}", 1, None, "???"]},
            "default": "${oc.env:LO_NOTHING,${token}}",
            "same": "${other}",
        }
    )
    token = "${oc.env:LO_TOKEN}"
    other = {"header": f"Bearer {token}", "list": [token, 1, None, "???"]}
    assert recorded_values(cfg) == {
        "token": token,
        "other": other,
        "default": f"${{oc.env:LO_NOTHING,{token}}}",
        "same": other,
    }
    assert cfg.other.header == "Bearer SECRET"  # whoever is built with it gets it


def test_numbers_stay_and_what_else_is_made_of_a_variable_does_not() -> None:
    cfg = OmegaConf.create(
        {"layers": "${oc.decode:${oc.env:LO_LAYERS}}", "list": "${oc.decode:${oc.env:LO_LIST}}"}
    )
    assert recorded_values(cfg) == {"layers": 3, "list": "${oc.env:LO_LIST}"}


def test_a_resolver_that_cannot_take_a_name_leaves_its_words() -> None:
    OmegaConf.register_new_resolver("lo_twice", lambda value: f"{value}{int(value)}", replace=True)
    cfg = OmegaConf.create({"a": "${lo_twice:${oc.env:LO_LAYERS}}", "b": "${oc.env:LO_TOKEN}"})
    try:
        assert cfg.a == "33"
        assert recorded_values(cfg) == {
            "a": "${lo_twice:${oc.env:LO_LAYERS}}",
            "b": "${oc.env:LO_TOKEN}",
        }
    finally:
        OmegaConf.clear_resolver("lo_twice")

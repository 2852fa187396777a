"""Every public name and every key of a config is in the reference that the site is built from."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import learned_opt
import tasks

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

import api_pages  # noqa: E402
import config_pages  # noqa: E402


def test_public_names_have_a_page() -> None:
    pages = api_pages.packages()
    for package in (learned_opt, tasks):
        for name, module in package.PUBLIC_NAMES.items():
            assert module in pages[module.rpartition(".")[0] or module], name


def test_every_module_with_public_names_has_a_section() -> None:
    shown = set()
    for package, names in api_pages.packages().items():
        text = api_pages.page(package, names)
        shown |= {name for name in names if f".. automodule:: {name}\n   :members:" in text}

    missing = []
    for package in api_pages.PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = api_pages.module_name(path)
            inner = name.split(".")[1:2] and name.split(".")[1] in api_pages.INNER_ROOMS
            is_left_out = inner or path.name in api_pages.NEEDS_A_GPU
            if api_pages.public_names(path) and not is_left_out and name not in shown:
                missing.append(name)
    assert missing == []


def test_public_names_have_a_docstring() -> None:
    """autodoc leaves out what has none."""
    missing = []
    for name, path in api_pages.modules().items():
        for node in ast.parse(path.read_text()).body:
            if api_pages.is_public(node) and not ast.get_docstring(node):
                missing.append(f"{name}.{node.name}")
    assert missing == []


def leaves(node: object, above: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {above}
    paths = {above} if above else set()
    for key, value in node.items():
        if key != "defaults" or above:
            paths |= leaves(value, f"{above}.{key}" if above else str(key))
    return paths


YAMLS = sorted(config_pages.CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_key_of_a_config_is_listed(path) -> None:
    parsed = config_pages.parse(path)
    whole = tuple(f"{key.path}." for key in parsed.keys if key.value.startswith("{"))
    listed = {key.path for key in parsed.keys}
    expected = leaves(yaml.safe_load(path.read_text()) or {})
    assert {name for name in expected - listed if not name.startswith(whole)} == set()


def test_comments_of_a_config_are_kept(tmp_path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text('# what it is\ndefaults:\n  - base\n\n# unit\na: "x # y" # why\nb:\n  c: 1\n')
    parsed = config_pages.parse(path)
    assert parsed.purpose == "what it is"
    assert parsed.defaults == ["base"]
    assert [tuple(vars(key).values()) for key in parsed.keys] == [
        ("a", '"x # y"', "unit why"),
        ("b", "", ""),
        ("b.c", "1", ""),
    ]


def test_groups_have_a_purpose() -> None:
    purposes = config_pages.purposes()
    assert {group for group in config_pages.groups() if group != "."} <= set(purposes)


def test_pages_name_classes_that_exist() -> None:
    for path in YAMLS:
        for key in config_pages.parse(path).keys:
            if key.path.endswith("_target_") and key.value.startswith(("learned_opt.", "tasks.")):
                module, _, name = key.value.rpartition(".")
                assert hasattr(import_module(module), name), key.value

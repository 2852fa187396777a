"""theta on disk: whole files, and no theta beside the description of another one."""

import json

import pytest
import torch

from learned_opt.deploy import weights
from learned_opt.deploy.weights import load_metadata, load_theta, save_theta
from tests.deploy.test_learned_optimizer import SPEC, deep_set
from tests.deploy.test_pretrained import DEEP_SET

METADATA = {"meta_optimizer": DEEP_SET, "specs": {"mine": SPEC.as_dict()}, "tasks": {"mine": {}}}
WRITERS = ("write_whole", "write_text")  # of theta, and of its description


class Killed(BaseException):
    """The end of the process, at a moment that the test chooses."""


def theta(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(p, value) for name, p in deep_set().named_parameters()}


def save_and_die(folder, value: float, description: str, at: str, monkeypatch) -> None:
    """``save_theta``, killed just before one of its two files is in place."""

    def die(*_) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(weights, at, die)
        with pytest.raises(Killed):
            save_theta(folder, theta(value), {**METADATA, "description": description})


@pytest.mark.parametrize("at", WRITERS)
def test_a_kill_leaves_no_theta_beside_the_description_of_another(
    tmp_path, at, monkeypatch
) -> None:
    path = save_theta(tmp_path, theta(1.0), {**METADATA, "description": "of 1"})
    save_and_die(tmp_path, 2.0, "of 2", at, monkeypatch)
    with pytest.raises(ValueError, match=r"lacks its theta\.json"):
        load_metadata(path)

    save_theta(tmp_path, theta(2.0), {**METADATA, "description": "of 2"})  # and it can go on
    optimizer = deep_set()
    load_theta(path, optimizer)
    assert all((p == 2.0).all() for p in optimizer.parameters())
    assert load_metadata(path)["description"] == "of 2"


@pytest.mark.parametrize("at", WRITERS)
def test_a_kill_while_only_the_description_changes_leaves_the_old_one(
    tmp_path, at, monkeypatch
) -> None:
    """The second save of a run, which adds its evaluation."""
    path = save_theta(tmp_path, theta(1.0), {**METADATA, "description": "trained"})
    save_and_die(tmp_path, 1.0, "evaluated", at, monkeypatch)
    assert load_metadata(path)["description"] == "trained"
    load_theta(path, deep_set())


@pytest.mark.parametrize("at", WRITERS)
def test_a_kill_in_an_empty_folder_leaves_nothing_that_can_be_loaded(
    tmp_path, at, monkeypatch
) -> None:
    save_and_die(tmp_path, 1.0, "first", at, monkeypatch)
    with pytest.raises(ValueError, match=r"there is none at|lacks its"):
        load_metadata(tmp_path / "theta.safetensors")


def test_two_files_are_all_that_is_left(tmp_path) -> None:
    for value in (1.0, 2.0):
        save_theta(tmp_path / "new", theta(value), METADATA)
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == ["theta.json", "theta.safetensors"]


def test_a_limit_that_is_off_survives_the_disk(tmp_path) -> None:
    """JSON has no infinity, Python's reader and writer do."""
    path = save_theta(tmp_path, theta(1.0), {**METADATA, "limit": float("inf")})
    assert load_metadata(path)["limit"] == float("inf")
    assert json.loads(path.with_suffix(".json").read_text())["format"] == 2

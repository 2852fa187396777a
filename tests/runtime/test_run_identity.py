"""What may differ when a run goes on, and what is said of the rest."""

import pytest

from learned_opt.core.errors import UsageError
from learned_opt.runtime import run_identity
from tests.compose.test_configs import composed

CONFIG = {
    "seed": 0,
    "trainer": {"max_steps": 4, "devices": 1, "gradient_clip_val": 1.0},
    "estimator": {"sigma": 0.1, "num_tasks": "auto"},
    "logger": {"csv": {"flush_every": 3}},
    "theta": None,
}


def changed(key: str, value: object) -> dict:
    """CONFIG with another value at a key with dots."""
    config = {name: dict(node) if isinstance(node, dict) else node for name, node in CONFIG.items()}
    *above, last = key.split(".")
    node = config[above[0]] if above else config
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.max_steps", 6),
        ("trainer.devices", 2),
        ("estimator.num_tasks", 16),  # what Ctrl-C prints in place of auto
        ("logger.csv", None),
        ("benchmark", {"num_seeds": 3}),
        ("compile", False),
    ],
)
def test_what_may_change(tmp_path, key, value) -> None:
    run_identity.keep(tmp_path, CONFIG)
    kept = (tmp_path / "identity.yaml").read_bytes()
    run_identity.refuse_another(tmp_path, changed(key, value))
    # what is compared next time is still the config that the run began with
    assert (tmp_path / "identity.yaml").read_bytes() == kept


def test_a_folder_of_a_former_version_is_gone_on_with(tmp_path) -> None:
    run_identity.keep(tmp_path, {**CONFIG, "ckpt": None})
    run_identity.refuse_another(tmp_path, {**CONFIG, "checkpoint": None})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("seed", 1, "seed (0 there, 1 here)"),
        ("trainer.max_steps", 3, "trainer.max_steps (4 there, 3 here)"),
        ("trainer.gradient_clip_val", 2.0, "trainer.gradient_clip_val (1.0 there, 2.0 here)"),
        ("theta", "unf-transfer", "theta (None there, unf-transfer here)"),
        ("estimator.anneal", True, "estimator.anneal (none there, True here)"),
    ],
)
def test_what_may_not_change_is_named(tmp_path, key, value, sentence) -> None:
    run_identity.keep(tmp_path, CONFIG)
    with pytest.raises(UsageError, match="holds a run of another config") as error:
        run_identity.refuse_another(tmp_path, changed(key, value))
    assert sentence in str(error.value)


def test_many_keys_are_counted(tmp_path) -> None:
    run_identity.keep(tmp_path, {str(key): 0 for key in range(12)})
    with pytest.raises(UsageError, match=r"7 \(0 there, 1 here\) and 4 more;"):
        run_identity.refuse_another(tmp_path, {str(key): 1 for key in range(12)})


def test_a_folder_of_no_training_refuses_nothing(tmp_path) -> None:
    run_identity.refuse_another(tmp_path, CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_a_sentence(tmp_path) -> None:
    for content in ("{", "- 1", ""):
        (tmp_path / "identity.yaml").write_text(content)
        with pytest.raises(UsageError, match=r"identity\.yaml must hold the config of a run"):
            run_identity.refuse_another(tmp_path, CONFIG)


def test_the_keys_that_may_change_are_keys_of_the_config() -> None:
    cfg = composed("+task=mlp", "+trainer.max_time=1", "+steps=1")
    for key in (*run_identity.MAY_CHANGE, *run_identity.MAY_GROW):
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]

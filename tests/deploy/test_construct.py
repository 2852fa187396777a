"""The safe constructor: what a theta.json may name, today and in files of earlier versions."""

import json
import sys

import pytest
from omegaconf import DictConfig, OmegaConf

from learned_opt import LearnedOptimizer
from learned_opt.deploy import construct
from learned_opt.deploy.weights import load_metadata
from learned_opt.optimizers.base import MetaOptimizer
from tests.cases import SPECS
from tests.compose.test_configs import CONFIGS, composed
from tests.deploy.test_learned_optimizer import equal, model, train
from tests.deploy.test_pretrained import DEEP_SET, UNF, run_folder, small, spec_of


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "learned_opt.unf.fused.ctypes.CDLL",
        "learned_opt.unf.layers.torch.load",
        "learned_opt.core.native.load",
        "learned_opt.optimizers.base.copy",
        "learned_opt.optimizers..os.system",
        "learned_opt.unf.layers.nn.Linear",
        "learned_opt.optimizers.nothing.Here",
        "learned_opt.optimizers.unf.Nothing",
        "learned_opt.optimizers.schedule.dataclass",
        ".".join(["learned_opt.optimizers"] * 100),  # deeper than Python imports
        3,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_config_can_name_nothing_but_our_classes(tmp_path, target, nested) -> None:
    """Nothing outside of the two packages is even imported."""
    hostile = {"_target_": target, "_partial_": True}
    node = {**DEEP_SET, "head": hostile} if nested else hostile
    spec = spec_of(model())  # which imports parts of torch
    before = set(sys.modules)
    refusal = r"which is no class of learned_opt\.optimizers or learned_opt\.unf"
    with pytest.raises(ValueError, match=refusal):
        construct.build(node, spec)
    assert set(sys.modules) == before


# words for what a config leaves to its user
REQUIRED = ["all.torch_optim.rule.path=torch.optim.Adamax"]


NAMES = sorted(path.stem for path in (CONFIGS / "meta_optimizer").glob("*.yaml"))


@pytest.fixture(scope="module")
def nodes() -> DictConfig:
    """The config of every meta-optimizer, composed at once."""
    words = [f"+meta_optimizer@all.{name}={name}" for name in NAMES]
    return composed("+task=mlp", *words, *REQUIRED).all


@pytest.mark.parametrize("name", NAMES)
def test_what_every_config_makes_can_be_loaded_again(nodes, name) -> None:
    plain = OmegaConf.to_container(nodes[name], resolve=True)
    assert isinstance(construct.build(plain, SPECS["mlp"]), MetaOptimizer)


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "__class__"])
def test_other_keys_of_hydra_are_refused(key) -> None:
    with pytest.raises(ValueError, match=f"not supported: {key}"):
        construct.build({**DEEP_SET, key: [1]}, spec_of(model()))


def test_a_layer_is_no_optimizer() -> None:
    with pytest.raises(ValueError, match="must be the config of a meta-optimizer"):
        construct.build(UNF, spec_of(model()))


def rule(path: str, **settings: float) -> dict:
    return {"_target_": path, "_partial_": True, **settings}


HAND = "learned_opt.optimizers.hand"
RULES = "learned_opt.optimizers.rules"
MOVED = {  # the config of today, and how it was called before the rules moved
    "momentum": (
        {
            **rule(f"{HAND}.hand_designed.HandDesigned", lr=0.1),
            "rule": rule(f"{HAND}.sgd.Momentum", gamma=0.8),
        },
        {
            **rule(f"{HAND}.HandDesigned", lr=0.1),
            "rule": rule(f"{RULES}.sgd.Momentum", gamma=0.8),
        },
    ),
    "lamb": (
        {
            **rule(f"{HAND}.hand_designed.HandDesigned", lr=0.1),
            "rule": {
                **rule(f"{HAND}.trust_ratio.TrustRatio"),
                "rule": rule(f"{HAND}.adam.Adam", beta1=0.8),
            },
        },
        {
            **rule(f"{HAND}.HandDesigned", lr=0.1),
            "rule": {
                **rule(f"{RULES}.trust_ratio.TrustRatio"),
                "rule": rule(f"{RULES}.adam.Adam", beta1=0.8),
            },
        },
    ),
    "celo2": (
        {
            **rule("learned_opt.optimizers.celo2.Celo2"),
            "vectors": rule(f"{HAND}.adam.Adam", beta2=0.9),
        },
        {
            **rule("learned_opt.optimizers.celo2.Celo2"),
            "vectors": rule(f"{RULES}.adam.Adam", beta2=0.9),
        },
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_file_from_before_classes_moved_gives_the_same_updates(tmp_path, name) -> None:
    today, before = MOVED[name]
    run_folder(tmp_path / "today", today)
    run_folder(tmp_path / "before", today)
    path = tmp_path / "before" / "theta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"meta_optimizer": before}))

    results = []
    for folder in ("today", "before"):
        network = small()
        optimizer = LearnedOptimizer.from_pretrained(tmp_path / folder, network)
        results.append(train(network, optimizer))
    assert equal(*results)
    # what reads the file through Hydra sees the names of today, too
    assert load_metadata(path.with_suffix(".safetensors"))["meta_optimizer"] == today


def test_names_of_today_stay_as_they_are() -> None:
    for today, before in MOVED.values():
        assert construct.with_current_names(today) == today != before
    for node in ("adam", None, 3, [1, {"_target_": 2}], {"_target_": "os.system"}):
        assert construct.with_current_names(node) == node


def test_a_moved_name_opens_no_other_door() -> None:
    for target in (f"{RULES}.torch_optim.torch.load", f"{HAND}.HandDesigned.forward", f"{RULES}."):
        with pytest.raises(ValueError, match="which is no class of"):
            construct.build({"_target_": target, "_partial_": True}, SPECS["mlp"])

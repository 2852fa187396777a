"""theta and recipes of strangers: nothing of theirs runs or takes memory."""

import json
import pickle
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from learned_opt import LearnedOptimizer
from learned_opt.commands import front_door
from learned_opt.compose import contenders, replayed
from learned_opt.compose.replayed import build_replayed
from learned_opt.compose.trained_optimizer import build_trained
from learned_opt.core.errors import UsageError
from learned_opt.deploy import construct
from learned_opt.deploy.foreign_classes import AllowedClasses, trusted_modules
from learned_opt.deploy.hub import PACKAGED
from learned_opt.deploy.metadata_schema import SPEC_PARTS
from learned_opt.deploy.weights import load_metadata
from tests.compose.test_configs import CONFIGS, composed
from tests.deploy.test_learned_optimizer import DATA, equal, model, train
from tests.deploy.test_pretrained import DEEP_SET, EQUIVARIANT, POINTWISE, run_folder, spec_of

HAND_DESIGNED = "learned_opt.optimizers.hand.hand_designed.HandDesigned"
TORCH_OPTIM = "learned_opt.optimizers.hand.torch_optim.TorchOptim"
TASK = "tasks.supervised.Classification"
MOMENTUM = "learned_opt.optimizers.hand.sgd.Momentum"
TASK_FILES = sorted((CONFIGS / "task").glob("*.yaml"))
TASKS = [path.stem for path in TASK_FILES if "@mix." not in path.read_text()]

USER_MODULE = """
from learned_opt.optimizers.hand.hand_designed import HandDesigned

class Mine(HandDesigned):
    def forward(self, grads, state, params, loss):
        updates, state = super().forward(grads, state, params, loss)
        return {name: 2 * update for name, update in updates.items()}, state
"""


class Trap:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _spring, (str(self.path),)


def _spring(path: str) -> None:
    Path(path).touch()


def trap(folder: Path) -> tuple[Path, Path]:
    """A pickle, and the file that is there once it has run."""
    sprung = folder / "sprung"
    path = folder / "x.pkl"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    return path, sprung


def node(**arguments: Any) -> dict[str, Any]:
    """The config of an optimizer on one rule."""
    rule = {"_target_": MOMENTUM, "_partial_": True}
    return {"_target_": HAND_DESIGNED, "_partial_": True, "rule": rule, "lr": 0.1, **arguments}


def written(folder: Path, meta_optimizer: dict[str, Any], **changes: Any) -> Path:
    """A theta of ``node()`` whose metadata name another optimizer."""
    run_folder(folder, node())
    metadata = {"optimizer_name": "theirs", "provenance": {}, "meta_optimizer": meta_optimizer}
    return changed(folder, **metadata, **changes)


def changed(folder: Path, **changes: Any) -> Path:
    """Change parts of ``theta.json``; a value of Ellipsis takes the part away."""
    path = folder / "theta.json"
    metadata = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in metadata.items() if value is not ...}
    path.write_text(json.dumps(kept))
    return folder / "theta.safetensors"


def load(path: Path, trust: tuple[str, ...] = ()) -> LearnedOptimizer:
    return LearnedOptimizer.from_pretrained(path, model(), (DATA,), trust=trust)


def every_reader(path: Path) -> list[Callable[[], object]]:
    """All that builds an optimizer from a file."""
    evaluation = composed("+task=mlp", f"theta=[{path}]", name="evaluate")
    training = composed("+task=mlp", f"theta={path}")
    return [
        lambda: load(path),
        lambda: contenders.build_learned(evaluation),
        lambda: build_trained(training, str(path)),
    ]


@pytest.mark.parametrize("kind", ["class", "argument", "interpolation", "name"])
def test_a_pickle_that_a_file_names_is_never_loaded(tmp_path, kind) -> None:
    pickled, sprung = trap(tmp_path)
    call = {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(pickled)}
    text = f"${{oc.create:{{_target_:pandas.read_pickle,filepath_or_buffer:'{pickled}'}}}}"
    changes = {
        "class": {"meta_optimizer": call},
        "argument": {"meta_optimizer": node(schedule=call)},
        "interpolation": {"meta_optimizer": node(schedule=text)},
        "name": {"meta_optimizer": node(), "optimizer_name": text},
    }
    written(tmp_path, node())
    path = changed(tmp_path, **changes[kind])

    for read in every_reader(path):
        with pytest.raises((ValueError, UsageError), match=r"names 'pandas\.read_pickle'|\$\{"):
            read()
    assert not sprung.exists()


def test_a_torch_optimizer_of_a_file_is_one_of_torch(tmp_path, monkeypatch) -> None:
    (tmp_path / "evilmod.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("evilmod.Adam", "torch.optimizers.Adam", "torch.optim", "os.system"):
        rule = {"_target_": TORCH_OPTIM, "_partial_": True, "path": path}
        with pytest.raises(ValueError, match=r"path must name a class of torch\.optim"):
            construct.build(node(rule=rule), spec_of(model()))
    assert "evilmod" not in sys.modules

    for path in ("torch.optim.Adamax", "torch.optim.adamax.Adamax"):
        rule = {"_target_": TORCH_OPTIM, "_partial_": True, "path": path}
        construct.build(node(rule=rule), spec_of(model()))


def test_what_a_user_trusts_is_imported_and_said(tmp_path, monkeypatch, caplog) -> None:
    """One's own meta-optimizer is deployed, evaluated and trained further."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").touch()
    (tmp_path / "mypkg" / "mine.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    path = written(tmp_path / "run", node(_target_="mypkg.mine.Mine"))

    for read in every_reader(path):
        with pytest.raises((ValueError, UsageError), match=r"To import it .* trust=\[mypkg\]"):
            read()
    assert "mypkg" not in sys.modules

    ours = load(path, trust=("mypkg",))
    assert type(ours.meta_optimizer).__name__ == "Mine"
    assert "imports mypkg.mine for a file, because trust names it" in caplog.text
    learned = contenders.build_learned(
        composed("+task=mlp", f"theta=[{path}]", "trust=[mypkg]", name="evaluate")
    )
    assert type(learned[0].constructor(spec_of(model()))).__name__ == "Mine"
    trained = build_trained(composed("+task=mlp", "trust=[mypkg]"), str(path))
    assert type(trained.problems["mlp"].optimizer).__name__ == "Mine"
    with pytest.raises(ValueError, match=r"names 'mypkg\.mine\.Mine', which is no class"):
        load(path, trust=("mypkg.other",))


@pytest.mark.parametrize("value", [True, [1], ["my pkg"], [""], 3, "../x"])
def test_trust_must_name_modules(value) -> None:
    with pytest.raises(ValueError, match="trust must name the modules to import"):
        trusted_modules(value)


def large_spec(num_tensors: int, axes: list[str]) -> dict[str, Any]:
    return {"mine": {"axes": {f"t{i}": axes for i in range(num_tensors)}}}


HUGE = [
    ({"meta_optimizer": {**EQUIVARIANT, "num_layers": 10**7}}, r"num_layers must lie between 0"),
    ({"meta_optimizer": {**EQUIVARIANT, "num_layers": 10**6}}, "larger optimizer than the 403"),
    ({"meta_optimizer": {**EQUIVARIANT, "channels": 30_000}}, "larger optimizer than the 403"),
    ({"meta_optimizer": {**EQUIVARIANT, "channels": 12}}, "of another architecture"),
    ({"specs": large_spec(1, ["h"] * 10)}, "readable in at most 20000 ways"),
    ({"specs": large_spec(1, ["h", "x"] * 20)}, "at most 16 axes, got 40"),
    ({"specs": large_spec(2000, ["h", "x", "row", "column"])}, "readable in at most 20000 ways"),
    pytest.param(
        {"specs": large_spec(2000, ["h", "x"])},
        "larger optimizer than|another architecture",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("changes", "message"), HUGE)
def test_an_optimizer_larger_than_its_file_is_never_built(tmp_path, changes, message) -> None:
    run_folder(tmp_path, EQUIVARIANT)
    path = changed(tmp_path, **changes)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        load(path)
    assert time.monotonic() - start < 20


def test_axes_of_a_thousand_million_take_no_memory(tmp_path) -> None:
    run_folder(tmp_path, EQUIVARIANT)
    spec = json.loads((tmp_path / "theta.json").read_text())["specs"]["mine"]
    spec["fixed_sizes"] = dict.fromkeys(spec["fixed"], 10**9)
    path = changed(
        tmp_path, specs={"mine": spec}, meta_optimizer={**EQUIVARIANT, "fixed_axes": "encode"}
    )
    with pytest.raises(ValueError, match="larger optimizer than"):
        load(path)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, " " * (2**24 + 1)])
def test_json_is_bounded_before_it_is_parsed(tmp_path, text) -> None:
    run_folder(tmp_path, DEEP_SET)
    (tmp_path / "theta.json").write_text(text)
    with pytest.raises(ValueError, match=r"nested at most 50 deep|at most 16777216 bytes"):
        load(tmp_path / "theta.safetensors")


def spec_with(**changes: Any) -> dict[str, Any]:
    axes = {"w": ["h", "x"], "b": ["h"]}
    spec = {"axes": axes, "fixed": ["x"], "views": {}, "reasons": {}, "fixed_sizes": {"x": 3}}
    return {"specs": {"mine": spec | changes}}


DAMAGED = [
    ({"specs": [1]}, r"specs in .*theta\.json must be a dict, got \[1\]"),
    ({"specs": {"mine": 3}}, r"'mine' of specs in .* must be a dict, got 3"),
    ({"specs": ...}, "lacks specs"),
    ({"meta_optimizer": ...}, "lacks meta_optimizer"),
    (spec_with(axes=5), r"axes of the spec of 'mine' in .* must be a dict, got 5"),
    (spec_with(axes={}), "must hold at least one tensor, got none"),
    (spec_with(axes={"w": 5}), r"axes of 'w' of the spec .* must be a list of names, got 5"),
    (spec_with(axes={"w": [5]}), r"must be a list of names, got \[5\]"),
    (spec_with(fixed=3), r"fixed of the spec .* must be a list of names, got 3"),
    (spec_with(fixed=["nothing"]), r"is none: fixed must hold names of axes"),
    (spec_with(views={"w": 3}), r"must be a list of lists of sizes, got 3"),
    (spec_with(views={"w": [["a"]]}), r"must be a whole number from 0 to .*, got 'a'"),
    (spec_with(views={"v": [[1]]}), r"views must be of tensors that have axes, got 'v'"),
    (spec_with(fixed_sizes={"x": -3}), r"fixed_sizes of 'x' .* from 0 to .*, got -3"),
    (spec_with(fixed_sizes={"x": 1.5}), r"must be a whole number from 0 to .*, got 1\.5"),
    (spec_with(fixed_sizes={"x": 10**15}), r"must be a whole number from 0 to .*, got 10000"),
    (spec_with(cuts={"w": 3}), r"must be an axis and a list of lengths, got 3"),
    (spec_with(secret=3), r"has parts that are not known: \['secret'\]"),
    ({"tasks": [3]}, r"tasks in .* must be a dict, got \[3\]"),
    ({"tasks": {"mine": 3}}, r"'mine' of tasks in .* must be a dict, got 3"),
    ({"tasks": {"mine": {"data": 5}}}, r"data of task 'mine' in .* must be a text, got 5"),
    ({"started_from": {"theta": "x"}}, r"started_from in .* lacks name"),
    ({"started_from": {"name": "x", "tasks": 3}}, r"tasks in started_from in .* a dict, got 3"),
    ({"warnings": [3]}, r"warnings in .* must be a list of texts, got \[3\]"),
    ({"warnings": "x"}, r"warnings in .* must be a list of texts, got 'x'"),
    ({"trained_by": 3}, r"trained_by in .* must be a dict, got 3"),
    ({"provenance": "x"}, r"provenance in .* must be a dict, got 'x'"),
    ({"evaluation": 3}, r"evaluation in .* must be a dict, got 3"),
    ({"optimizer_name": 3}, r"optimizer_name in .* must be a text of 1 to 200 .*got 3"),
    ({"optimizer_name": "a" * 300}, r"optimizer_name in .* must be a text of 1 to 200"),
    ({"optimizer_name": "a\nb"}, r"optimizer_name in .* must be a text of 1 to 200"),
    ({"format": ...}, "has format None, this version reads 2"),
    ({"format": [2]}, r"has format \[2\], this version reads 2"),
    ({"format": 1}, "does not describe a learned optimizer: it lacks task"),
    ({"format": 1, "task": 3, "spec": {}}, "task in .* must be a dict, got 3"),
    ({"meta_optimizer": node(schedule="cosine")}, r"schedule must be the config of a class"),
    ({"meta_optimizer": node(schedule=3)}, r"schedule must be the config of a class, got 3"),
    ({"meta_optimizer": node(lr="fast")}, r"lr must be a number, got 'fast'"),
    ({"meta_optimizer": node(lr=None)}, r"lr must be a number, got None"),
    ({"meta_optimizer": node(lr=True)}, r"lr must be a number, got True"),
    (
        {"meta_optimizer": node(lr=float("nan"))},
        r"meta_optimizer in .*lr must be a number, got nan",
    ),
    ({"meta_optimizer": node(lr=-1.0)}, "lr must be positive, got -1.0"),
    ({"meta_optimizer": node(rule=POINTWISE)}, "does not take these arguments"),
    ({"meta_optimizer": {**DEEP_SET, "alpha": float("nan")}}, r"alpha must be a number, got nan"),
    ({"meta_optimizer": {**DEEP_SET, "channels": 0}}, r"channels must lie between 1 and .*got 0"),
    ({"meta_optimizer": {**DEEP_SET, "channels": -1}}, r"channels must lie between 1 .*got -1"),
    ({"meta_optimizer": {**DEEP_SET, "channels": 1.5}}, "channels must be a whole number, got 1.5"),
    ({"meta_optimizer": {**DEEP_SET, "normalisation": 3}}, "normalisation must be a text, got 3"),
    ({"meta_optimizer": {**DEEP_SET, "nominal": POINTWISE}}, "does not take these arguments"),
    ({"meta_optimizer": {**DEEP_SET, "nominal": "x"}}, "nominal must be the config of a class"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGED)
def test_damaged_metadata_are_one_sentence(tmp_path, changes, message) -> None:
    run_folder(tmp_path, DEEP_SET)
    path = changed(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("part", ["tasks", "optimizer_name", "provenance"])
def test_what_an_evaluation_needs_is_missed_in_a_sentence(tmp_path, part) -> None:
    written(tmp_path, node())
    path = changed(tmp_path, **{part: ...})
    with pytest.raises(ValueError, match=f"does not describe a learned optimizer: it lacks {part}"):
        contenders.build_learned(composed("+task=mlp", f"theta=[{path}]", name="evaluate"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda leaf: leaf * torch.nan, "must hold finite numbers, got nan"),
        (lambda leaf: leaf + torch.inf, "must hold finite numbers, got inf"),
        (lambda leaf: leaf - torch.inf, "must hold finite numbers, got -inf"),
        (
            lambda leaf: leaf.to(torch.complex64),
            "must hold floating-point numbers, it is of type C",
        ),
        (lambda leaf: leaf.to(torch.int64), "must hold floating-point numbers, it is of type I64"),
        (lambda leaf: leaf.repeat(2), "of another architecture: log_alpha has shape"),
    ],
)
def test_theta_holds_finite_real_numbers(tmp_path, damage, message) -> None:
    run_folder(tmp_path, DEEP_SET)
    path = tmp_path / "theta.safetensors"
    theta = load_file(path)
    save_file(theta | {"log_alpha": damage(theta["log_alpha"])}, path)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_part_that_is_left_out_for_good_may_be_minus_infinite(tmp_path) -> None:
    """The logarithm of beta = 0."""
    run_folder(tmp_path, {**DEEP_SET, "beta": 0.0})
    assert load(tmp_path / "theta.safetensors").meta_optimizer.log_beta == -torch.inf


def test_the_bounds_change_no_step_and_leave_no_hooks(tmp_path) -> None:
    meta = run_folder(tmp_path, EQUIVARIANT)
    left = model()
    right = model()
    ours = train(left, load_for(tmp_path, left))
    assert equal(ours, train(right, LearnedOptimizer(right, meta)))
    assert not torch.nn.modules.module._global_parameter_registration_hooks
    assert not torch.nn.modules.module._global_module_registration_hooks


def load_for(folder: Path, network: torch.nn.Module) -> LearnedOptimizer:
    return LearnedOptimizer.from_pretrained(folder, network, (DATA,))


def test_specs_and_packaged_files_fit_the_schema() -> None:
    assert set(spec_of(model()).as_dict()) <= SPEC_PARTS
    for path in PACKAGED.glob("*/theta.safetensors"):
        assert load_metadata(path)["specs"]


def recipe_config(task: str = "mlp") -> dict[str, Any]:
    cfg = composed(f"+task={task}", "compile=false")
    values = {}
    for key in cfg:
        if key != "hydra":
            part = cfg[key]
            is_node = OmegaConf.is_config(part)
            values[str(key)] = OmegaConf.to_container(part, resolve=True) if is_node else part
    return values


def test_a_recipe_builds_nothing_of_others(tmp_path) -> None:
    pickled, sprung = trap(tmp_path)
    call = {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(pickled)}
    for key in ("task", "augment", "meta_optimizer", "benchmark"):
        config = recipe_config()
        # as an argument, at an end that its constructor does not check
        config[key] = {"_target_": TASK, "network": call}
        with pytest.raises(UsageError, match=r"network names 'pandas\.read_pickle', which is no"):
            build_replayed(config, [])
        config[key] = call
        with pytest.raises(UsageError, match=r"names 'pandas\.read_pickle', which is no class of"):
            build_replayed(config, [])
    for target in ("tasks.data.hub.os.system", "learned_opt.core.files.write_text", "os.system"):
        with pytest.raises(UsageError, match="which is no class of tasks"):
            build_replayed(recipe_config() | {"task": {"_target_": target}}, [])
    with pytest.raises(UsageError, match="the config of the recipe lacks task"):
        build_replayed({}, [])
    assert not sprung.exists()


RECIPE = {
    "format": 2,
    "outer_step": 0,
    "task": 0,
    "copy": 0,
    "root": 1,
    "unroll_length": 3,
    "split": "train",
    "backpropagates": False,
    "config": {},
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RECIPE | {"config": {"name": "${oc.env:HOME}"}}, "must be a plain value, got"),
        (RECIPE | {"config": 3}, "config of recipe .* must be of type dict, got 3"),
        (RECIPE | {"unroll_length": 10**12}, "unroll_length of recipe .* must lie between 0 and"),
        (RECIPE | {"task": True}, "task of recipe .* must be of type int, got True"),
        (RECIPE | {"format": [2]}, r"format of recipe .* must be a whole number, got \[2\]"),
        ("[" * 100_000, "nested at most 50 deep"),
        ("a: &a [1]\nb: [*a, *a]\n", r"repeats parts of itself \(\*a\)"),
        ("!!python/object/apply:os.system [echo]\n", "is no recipe of an unroll"),
    ],
)
def test_a_damaged_recipe_is_one_sentence(tmp_path, monkeypatch, capsys, text, message) -> None:
    path = tmp_path / "step0_task0.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    save_file({"theta/x": torch.zeros(1)}, path.with_suffix(".safetensors"))
    monkeypatch.setattr(sys, "argv", ["learned_opt", "replay", str(path)])
    with pytest.raises(SystemExit) as stop:
        front_door.main()
    assert stop.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("task", TASKS)
def test_recipes_of_every_task_of_ours_name_only_what_they_may(task) -> None:
    config = recipe_config(task)
    # losses and layers of torch are for users to trust
    allowed = AllowedClasses(replayed.PACKAGES, object, replayed.FUNCTIONS, ("torch.nn",))
    for key in replayed.NODES:
        allowed.check(config.get(key), key)

"""The same problem in scaled coordinates."""

import json
import sys

import numpy as np
import pytest
import torch
from torch.func import grad

from learned_opt.commands import evaluate, train
from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.results import read_evaluation
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_sgdm
from tasks.reparam import LEVELS, Reparametrised
from tests.cases import FAMILIES, spec_of
from tests.commands.test_cli import TINY, refused


def draws(family, seed: int = 0) -> tuple[dict, dict, dict]:
    task = family.sample(generator(seed, "task"))
    return (
        family.init(generator(seed, "init"), task),
        family.batch(generator(seed, "batch"), task),
        task,
    )


@pytest.mark.parametrize("level", LEVELS)
def test_scale_one_is_the_identity(level) -> None:
    inner = FAMILIES["mlp"]()
    params, batch, task = draws(Reparametrised(inner, level, 1.0, 1.0))
    plain, same_batch, nothing = draws(inner)
    family = Reparametrised(inner, level, 1.0, 1.0)
    assert all(torch.equal(params[k], plain[k]) for k in plain)
    assert torch.equal(batch["index"], same_batch["index"])
    assert torch.equal(family.loss(params, batch, task), inner.loss(plain, batch, nothing))
    gradients = grad(family.loss)(params, batch, task), grad(inner.loss)(plain, batch, nothing)
    assert all(torch.equal(gradients[0][k], gradients[1][k]) for k in plain)


@pytest.mark.parametrize("level", LEVELS)
def test_weights_are_divided_and_gradients_multiplied_by_the_scale(level) -> None:
    inner = FAMILIES["cnn"]()
    family = Reparametrised(inner, level, 0.1, 10.0)
    params, batch, task = draws(family)
    plain, _, nothing = draws(inner)
    for name, param in params.items():
        torch.testing.assert_close(param * task["scale"][name], plain[name])
    torch.testing.assert_close(family.loss(params, batch, task), inner.loss(plain, batch, nothing))
    figures = family.evaluate(params, task)
    expected = inner.evaluate(plain, nothing)
    torch.testing.assert_close(figures["test_loss"], expected["test_loss"])

    gradients = grad(family.loss)(params, batch, task)
    unscaled = grad(inner.loss)(plain, batch, nothing)
    for name, gradient in gradients.items():
        scaled = unscaled[name] * task["scale"][name]
        torch.testing.assert_close(gradient, scaled, rtol=1e-4, atol=1e-6)


def test_descent_on_a_global_scale_is_descent_with_the_squared_rate() -> None:
    """``x <- x - lr s g(s x)`` is ``w <- w - lr s^2 g(w)`` with ``w = s x``."""
    inner = FAMILIES["quadratic"]()
    scale = 0.5
    scaled = Reparametrised(inner, "global", scale, scale)
    losses = []
    for family, lr in ((inner, 0.1 * scale**2), (scaled, 0.1)):
        unroll = Unroll(family, make_sgdm(spec_of(family), lr=lr, gamma=1e-6), compile=False)
        keys = [("chain", 0)]
        chains = unroll.start(keys)
        parameters = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
        theta = tree.expand(parameters, 1)
        losses.append(unroll.run(theta, chains, unroll.batches(keys, chains, 9))[0])
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(
    ("level", "count"), [("global", 1), ("tensor", 4), ("parameter", 16 * 2 * 5 + 5 + 15 + 3)]
)
def test_what_shares_a_scale(level, count) -> None:
    task = Reparametrised(FAMILIES["mlp"](), level).sample(generator(0))
    assert torch.cat([leaf.flatten() for leaf in task["scale"].values()]).unique().numel() == count


def test_scales_are_log_uniform_and_each_chain_has_its_own() -> None:
    family = Reparametrised(FAMILIES["quadratic"](), "global")
    logs = np.array([family.sample(generator(i))["scale"]["x"].log10().item() for i in range(2000)])
    assert logs.mean() == pytest.approx(0, abs=3 * 3**0.5 / 2000**0.5)
    assert logs.std() == pytest.approx(3**0.5, rel=0.05)  # of a uniform on [-3, 3]
    assert -3 <= logs.min() < -2.9 < 2.9 < logs.max() <= 3
    unroll = Unroll(family, make_sgdm(spec_of(FAMILIES["quadratic"]())), compile=False)
    scales = unroll.start([("a", 0), ("a", 1), ("a", 0)])["task"]["scale"]["x"]
    assert scales[0] == scales[2] != scales[1]


@pytest.mark.parametrize("level", LEVELS)
def test_what_permutations_do(level) -> None:
    """Per tensor the spec of the family holds for each task.

    Per parameter it holds only if the scales are permuted too.
    """
    inner = FAMILIES["mlp"]()
    family = Reparametrised(inner, level, 0.5, 2.0)
    spec = spec_of(inner)
    params, batch, task = draws(family)
    loss = family.loss(params, batch, task)

    moves = spec.draw(params, generator("moves"))
    moved = spec.apply(params, moves)
    scale = task["scale"] if level != "parameter" else spec.apply(task["scale"], moves)
    torch.testing.assert_close(family.loss(moved, batch, {**task, "scale": scale}), loss)
    if level == "parameter":
        assert (family.loss(moved, batch, task) - loss).abs() > 1e-3
        with pytest.raises(
            ValueError, match="permutation spec of task 'noise' is wrong: hidden0 is no symmetry"
        ):
            symmetry_of(family)
    else:
        assert symmetry_of(family)[1] == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "layer"}, "level must be one of global, tensor, parameter, got 'layer'."),
        ({"low": 0.0}, "0 < low <= high, got 0.0 and 1000.0"),
        ({"low": 2.0, "high": 1.0}, "0 < low <= high, got 2.0 and 1.0"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Reparametrised(FAMILIES["quadratic"](), **settings)


@pytest.mark.slow
def test_an_augmented_run_trains_on_scales_and_compares_on_the_plain_task(
    monkeypatch, tmp_path
) -> None:
    """The same theta on the plain task, at the end of the run, and on the scaled one on demand."""
    monkeypatch.chdir(tmp_path)
    words = [
        "+task=mlp",
        "meta_optimizer=sgdm",
        "augment=reparam",
        "augment.level=parameter",
        *TINY,
    ]
    theta = "theta=runs/train/theta.safetensors"
    losses = {}
    scales = {}
    for name, entry, *more in (("train", train), ("evaluate", evaluate, theta)):
        monkeypatch.setattr(sys, "argv", [name, *words, *more, f"hydra.run.dir=runs/{name}"])
        entry.main()
        results = read_evaluation(tmp_path / "runs" / name / "evaluation.json")
        rows = results.frame[results.frame["optimizer"] == "sgdm-learned"]
        losses[name] = rows["mean_loss"].tolist()
        scales[name] = results.described["mlp"].get("scales")
    assert len(losses["train"]) == len(losses["evaluate"]) == 3
    assert losses["train"] != losses["evaluate"]

    expected = "0.001 to 1000, parameter level"
    assert scales == {"train": None, "evaluate": expected}
    metadata = json.loads((tmp_path / "runs" / "train" / "theta.json").read_text())
    assert metadata["tasks"]["mlp"]["scales"] == expected


def test_a_misspelt_level_is_one_sentence(monkeypatch, capsys, tmp_path) -> None:
    words = ["+task=mlp", "augment=reparam", "augment.level=tensors"]
    assert "level must be one of global, tensor, parameter" in refused(
        monkeypatch, capsys, tmp_path, train.main, *words
    )

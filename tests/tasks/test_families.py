"""Every task family through the contract; the quadratic against its closed form."""

import pytest
import torch
from torch.func import grad, vmap

from learned_opt.core import tree
from learned_opt.core.rng import generator
from tasks.base import TaskFamily
from tasks.networks.cnn import CNN
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.supervised import Classification
from tests.cases import FAMILIES, images, spec_of


def draw(family, seed: int) -> tuple[dict, dict, dict]:
    task = family.sample(generator(seed, "task"))
    return (
        family.init(generator(seed, "init"), task),
        family.batch(generator(seed, "batch"), task),
        task,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_contract(name) -> None:
    family = FAMILIES[name]()
    params, batch, task = draw(family, 0)
    spec_of(family).sizes(params)
    loss = family.loss(params, batch, task)
    assert loss.shape == ()
    assert loss.isfinite()
    gradients = grad(family.loss)(params, batch, task)
    assert all(
        gradients[k].shape == v.shape and gradients[k].abs().max() > 0 for k, v in params.items()
    )
    again, _, _ = draw(family, 0)
    other, _, _ = draw(family, 1)
    assert all(torch.equal(again[k], v) for k, v in params.items())
    assert any(not torch.equal(other[k], v) for k, v in params.items())
    assert all(figure.shape == () for figure in family.evaluate(params, task).values())
    assert family.describe()["task"] == family.name


@pytest.mark.parametrize("name", FAMILIES)
def test_vmap_equals_loop(name) -> None:
    family = FAMILIES[name]()
    draws = [draw(family, seed) for seed in range(3)]
    params, batches, tasks = (tree.stack(list(column)) for column in zip(*draws, strict=True))
    losses = vmap(family.loss)(params, batches, tasks)
    torch.testing.assert_close(
        losses, torch.stack([family.loss(*d) for d in draws]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_batches_drawn_at_once_are_those_drawn_one_by_one(name) -> None:
    family = FAMILIES[name]()
    task = family.sample(torch.Generator().manual_seed(0))
    for split in family.splits:
        source = torch.Generator().manual_seed(1)
        batches = family.batches(source, task, 3, split)
        again = torch.Generator().manual_seed(1)
        for k in range(3):
            batch = family.batch(again, task, split)
            assert set(batch) == set(batches)
            for field, leaf in batch.items():
                assert torch.equal(batches[field][k], leaf)
        assert torch.equal(source.get_state(), again.get_state())


def test_batches_of_a_family_that_draws_in_its_way() -> None:
    class Ordered(type(FAMILIES["mlp"]())):
        def batch(self, generator, task, split="train"):
            return {"index": torch.arange(self.batch_size)}

    family = FAMILIES["mlp"]()
    family.__class__ = Ordered
    batches = family.batches(torch.Generator(), {}, 2)
    assert torch.equal(batches["index"][1], torch.arange(family.batch_size))


def test_four_methods_make_a_family() -> None:
    assert TaskFamily.__abstractmethods__ == {"sample", "init", "batch", "loss"}
    family = FAMILIES["four_methods"]()
    params, _, task = draw(family, 0)
    assert family.evaluate(params, task) == {}
    assert family.permutation_axes() is None
    assert family.describe() == {"task": "task"}
    assert family.rows("train") is None
    assert family.to("cpu") is family


def test_quadratic_descends_as_its_closed_form_says() -> None:
    family = Quadratic(dim=4, condition=10.0)
    params, batch, task = draw(family, 0)
    start = params["x"]
    lr = 0.5
    for _ in range(7):
        params = {"x": params["x"] - lr * grad(family.loss)(params, batch, task)["x"]}
    torch.testing.assert_close(params["x"], start * (1 - lr * family.curvatures) ** 7)
    assert (family.curvatures[0] / family.curvatures[-1]).item() == pytest.approx(10)


def test_initial_weights_have_he_variance_and_biases_are_zero() -> None:
    params = MLP((1, 16, 16), 10, (400,)).init(generator(0))
    assert params["layers.0.weight"].var().item() == pytest.approx(2 / 256, rel=0.02)
    assert (params["layers.0.bias"] == 0).all()
    norm = CNN((2, 4, 4), 3, (4,), (1,), norm=True).init(generator(0))
    assert (norm["norms.0.weight"] == 1).all()


def test_flattening_cnn_equals_a_plain_linear_layer() -> None:
    network = CNN((2, 4, 4), 3, channels=(4,), strides=(2,), pool="flatten")
    hidden = torch.randn(5, 4, 2, 2)
    expected = hidden.flatten(1) @ network.head.weight.flatten(1).T + network.head.bias
    torch.testing.assert_close(network.head(hidden), expected)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: Quadratic(dim=0), "dim must be at least 1, got 0"),
        (lambda: Quadratic(condition=0.5), "condition must be at least 1"),
        (lambda: Quadratic(noise=-1.0), "noise must not be negative"),
        (lambda: MLP((4,), 2, (0,)), r"hidden_sizes\[0\] must be at least 1, got 0"),
        (lambda: CNN((4,), 2), r"needs inputs \(channels, height, width\), got the shape \(4,\)"),
        (lambda: CNN((1, 4, 4), 2, kernel_size=2), "kernel_size must be odd and positive, got 2"),
        (
            lambda: CNN((1, 4, 4), 2, channels=(3,)),
            "channels and strides must be of one length, got 1 and 2",
        ),
        (lambda: CNN((1, 4, 4), 2, pool="max"), "pool must be 'mean' or 'flatten', got 'max'"),
        (
            lambda: Classification("t", MLP, images(), batch_size=0),
            "batch_size must be at least 1, got 0",
        ),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()

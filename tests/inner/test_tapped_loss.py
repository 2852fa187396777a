"""Factors of gradients: their sums are the gradient, their squares those of single examples."""

import logging
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.factors import Factors
from learned_opt.optimizers.features import Reading
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from tests.cases import FAMILIES, OPTIMIZERS, FourMethods, spec_of


class First(nn.Module):
    """The first of the outputs of a module, through a read-out."""

    def __init__(self, core: nn.Module, size: int) -> None:
        super().__init__()
        self.core = core
        self.head = nn.Linear(size, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.core(inputs)[0])


class Attention(nn.Module):
    """Packed attention on embedded tokens, a norm of layers, and a read-out, tied or not."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = None if tied else nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embed(tokens)
        mixed = self.norm(embedded + self.attention(embedded, embedded, embedded)[0])
        return mixed @ self.embed.weight.T if self.head is None else self.head(mixed)


def convolutions() -> nn.Module:
    first = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
    second = nn.Conv2d(6, 4, (2, 3), padding=(0, 1))
    return nn.Sequential(first, nn.ReLU(), second, nn.GroupNorm(2, 4), nn.PReLU(4))


def transposed() -> nn.Module:
    settings = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    return nn.Sequential(nn.Conv1d(4, 6, 3), nn.Tanh(), nn.ConvTranspose1d(6, 4, 3, **settings))


TOKENS = (5, 7)
MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (7, 6)),
    "conv": (convolutions, (5, 4, 11, 12)),
    "transposed": (transposed, (5, 4, 11)),
    "attention": (partial(Attention, tied=False), TOKENS),
    "tied": (partial(Attention, tied=True), TOKENS),
    "rnn": (lambda: First(nn.RNN(4, 5, batch_first=True), 5), (6, 7, 4)),
    "gru": (lambda: First(nn.GRU(4, 5), 5), (7, 6, 4)),
    "lstm": (lambda: First(nn.LSTM(4, 5, num_layers=2, bidirectional=True), 10), (7, 6, 4)),
}
ROWS = {"conv": {"0.weight": 125, "3.weight": 100}, "lstm": {"core.weight_hh_l0": 42}}


def problem(name: str, dtype: torch.dtype = torch.float64):
    """Loss, parameters and batch of a module."""
    torch.manual_seed(0)
    make, shape = MODULES[name]
    module = make().to(dtype)
    inputs = torch.randint(11, shape) if shape is TOKENS else torch.randn(shape, dtype=dtype)
    targets = torch.randn(module(inputs).shape, dtype=dtype)
    params = {key: value.detach() for key, value in module.named_parameters()}

    def loss(params, batch, task):
        return (functional_call(module, params, (batch["x"],)) - batch["y"]).square().mean()

    return loss, params, {"x": inputs, "y": targets}


def largest_gap(factors: dict[str, Factors], grads: dict) -> float:
    gaps = [(factors[name].gradient() - grad).abs().max() for name, grad in grads.items()]
    return max(gap.item() for gap in gaps)


@pytest.mark.parametrize("name", MODULES)
def test_factors_sum_to_the_gradient(name: str) -> None:
    loss, params, batch = problem(name)
    tapped = TappedLoss(loss, params, batch, {})
    assert not tapped.uncovered
    for key, num_rows in ROWS.get(name, {}).items():
        assert tapped.num_rows[key] == num_rows

    # on other weights than those of the trace
    params = {key: 1.1 * value for key, value in params.items()}
    expected = grad(loss)(params, batch, {})
    grads, value, factors = tapped(params, batch, {})
    torch.testing.assert_close(value, loss(params, batch, {}), rtol=1e-13, atol=0)
    assert max((grads[key] - expected[key]).abs().max() for key in grads) < 1e-12
    assert largest_gap(factors, expected) < 1e-12
    assert min(value.abs().max() for value in expected.values()) > 1e-6 or "attention" in str(
        params
    )


@pytest.mark.parametrize("name", ["mlp", "attention", "gru"])
def test_chains_side_by_side_have_the_factors_of_each(name: str) -> None:
    loss, params, batch = problem(name, torch.float32)
    tapped = TappedLoss(loss, params, batch, {})
    scales = torch.tensor([0.5, 1.0, 2.0])

    def statistics(scale: Tensor) -> dict:
        scaled = {key: scale * value for key, value in params.items()}
        factors = tapped(scaled, batch, {})[2]
        return {key: (of.squares(), of.moments()) for key, of in factors.items()}

    together = vmap(statistics)(scales)
    for i, scale in enumerate(scales):
        for key, (squares, moments) in statistics(scale).items():
            torch.testing.assert_close(together[key][0][i], squares, rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(together[key][1][i], moments, rtol=1e-4, atol=1e-7)


def test_squares_are_those_of_the_gradients_of_single_examples() -> None:
    """The two statistics against ``vmap(grad)`` of the loss of each example."""
    loss, params, batch = problem("mlp")
    factors = TappedLoss(loss, params, batch, {})(params, batch, {})[2]

    def of_one(x: Tensor, y: Tensor) -> dict:
        return grad(loss)(params, {"x": x.unsqueeze(0), "y": y.unsqueeze(0)}, {})

    single = vmap(of_one)(batch["x"], batch["y"])  # (B, *shape)
    for key, each in single.items():
        num_examples = len(each)
        expected = each.square().mean(0) / num_examples
        assert (factors[key].squares() - expected).abs().max() < 1e-14
        expected = each.var(0, correction=1) / num_examples
        assert (factors[key].error_squares() - expected).abs().max() < 1e-14


def test_moments_are_those_of_the_two_neurons_of_a_weight() -> None:
    loss, params, batch = problem("mlp")
    factors = TappedLoss(loss, params, batch, {})(params, batch, {})[2]
    x = batch["x"]  # (7, 6)
    hidden = torch.tanh(x @ params["0.weight"].T + params["0.bias"])
    outputs = hidden @ params["2.weight"].T + params["2.bias"]
    gradients = 2 * (outputs - batch["y"]) / 3  # of an example: the mean over 3 outputs

    expected = [hidden.mean(0), hidden.square().mean(0)]
    for actual, mean in zip(factors["2.weight"].moments()[:2], expected, strict=True):
        torch.testing.assert_close(actual, mean.expand(3, 5))
    expected = [gradients.mean(0), gradients.square().mean(0)]
    for actual, mean in zip(factors["2.weight"].moments()[2:], expected, strict=True):
        torch.testing.assert_close(actual, mean.unsqueeze(1).expand(3, 5))
    torch.testing.assert_close(factors["2.bias"].moments()[2], gradients.mean(0))
    assert (factors["2.bias"].moments()[:2] == 1).all()


def test_patches_have_the_means_that_the_unfolded_image_has() -> None:
    loss, params, batch = problem("conv")
    factors = TappedLoss(loss, params, batch, {})(params, batch, {})[2]
    patches = nn.functional.unfold(batch["x"], 3, dilation=2, padding=1, stride=2)
    mean = patches.mean((0, 2)).reshape(2, 1, 2, 3, 3).expand(2, 3, 2, 3, 3).flatten(0, 1)
    torch.testing.assert_close(factors["0.weight"].moments()[0], mean)


COVERED = {name: make for name, make in FAMILIES.items() if name != "moe_mlp"}


@pytest.mark.parametrize("name", COVERED)
def test_every_network_of_ours_is_covered(name: str) -> None:
    family = FAMILIES[name]()
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    params = family.init(source, task)
    batch = family.batch(source, task)
    tapped = TappedLoss(family.loss, params, batch, task)
    assert not tapped.uncovered

    factors = tapped(params, batch, task)[2]
    expected = grad(family.loss)(params, batch, task)
    size = max(value.abs().max().item() for value in expected.values())
    assert largest_gap(factors, expected) < 1e-5 * size


class Prototypes(FourMethods):
    """A regression that also reads its weights in ways that have no rows."""

    name = "prototypes"

    @override
    def init(self, generator, task):
        return super().init(generator, task) | {"scale": torch.ones(3, 3), "unread": torch.ones(2)}

    @override
    def loss(self, params, batch, task):
        weight = params["hidden"] @ params["scale"]  # a product of parameters alone
        return super().loss(params | {"hidden": weight}, batch, task)


def test_what_cannot_be_covered_is_named_and_has_channels_of_zero(caplog) -> None:
    family = Prototypes()
    features = {"set": partial(SecondMoments, squares="examples")}
    optimizer = UNFOptimizer(spec_of(family), channels=4, extra_features=features)
    with caplog.at_level(logging.WARNING):
        unroll = Unroll(family, optimizer, compile=False)
    assert set(unroll.tapped.uncovered) == {"hidden", "scale", "unread"}
    expected = "prototypes: no gradients of single examples for hidden (it is read by mm)"
    assert expected in caplog.text
    assert "unread (the loss does not read it)" in caplog.text

    chain = tree.tree_map(lambda leaf: leaf[0], unroll.start([("test", 0)]))
    batch = family.batch(torch.Generator().manual_seed(0), chain["task"])
    grads, _, factors = unroll.tapped(chain["params"], batch, chain["task"])
    assert grads["hidden"].abs().max() > 0
    reading = optimizer.extra.parts["set"]
    state = reading.init_state(chain["params"])
    channels, _ = reading(Reading(grads, chain["params"], torch.tensor(1), factors), state)
    assert (channels["hidden"] == 0).all()
    assert channels["output"].abs().max() > 0


class HandWritten(torch.autograd.Function):
    """A step function whose gradient is written by hand: that of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value):
        return (value > 0).to(value.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_gradient_that_the_trace_does_not_have_is_left_to_the_loss() -> None:
    def loss(params, batch, task):
        return HandWritten.apply(batch["x"] @ params["w"]).sum()

    params = {"w": torch.ones(3, 2)}
    batch = {"x": torch.ones(4, 3)}
    tapped = TappedLoss(loss, params, batch, {})
    assert tapped.uncovered == {"w": "the traced loss has another gradient than the loss"}
    grads, value, factors = tapped(params, batch, {})
    assert (grads["w"] == 4).all()
    assert (value, factors) == (8, {})


def test_only_those_who_need_factors_pay_for_them() -> None:
    family = FAMILIES["mlp"]()
    assert Unroll(family, OPTIMIZERS["unf"](spec_of(family)), compile=False).tapped is None

"""Quadratic layers in the place of torch's: geometry, starts, norms, conversion, bad input."""

import pytest
import torch
from torch import nn

from tasks.networks.cnn import CNN
from tasks.networks.mlp import MLP
from tasks.networks.quadratic import QuadraticConv2d, QuadraticLinear
from tasks.networks.quadratize import quadratize
from tests.helpers.wirings import Wire


def images(channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, 7, 8, generator=torch.Generator().manual_seed(0))


GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "groups": 2},
    {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 2, "stride": 2, "padding": "valid", "bias": False},
]


@pytest.mark.filterwarnings(
    "ignore:Using padding='same':UserWarning"
)  # torch's own layer, on its speed
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("recompute", [0, 2])
def test_convolution_is_the_formula_in_torch_convolutions(geometry, recompute) -> None:
    torch.manual_seed(0)
    layer = QuadraticConv2d(4, 6, **geometry, init="unit_variance", recompute=recompute)
    branches = {letter: nn.Conv2d(4, 6, **geometry) for letter in "abc"}
    for letter, conv in branches.items():
        conv.load_state_dict(
            {k.split("_")[0]: p for k, p in layer.state_dict().items() if k.endswith(letter)}
        )
    a, b, c = (conv(images()) for conv in branches.values())
    torch.testing.assert_close(layer(images()), a * b + c, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer(images()[0]), (a * b + c)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("terms", ["form+linear", "product+linear", "squares", "square"])
def test_convolution_is_the_dense_layer_on_unfolded_patches(terms) -> None:
    torch.manual_seed(0)
    conv = QuadraticConv2d(4, 5, (3, 2), (2, 1), (1, 2), (1, 2), terms=terms, init="unit_variance")
    dense = QuadraticLinear(4 * 3 * 2, 5, terms=terms, init="unit_variance")
    dense.load_state_dict(
        {n: p.reshape(dense.state_dict()[n].shape) for n, p in conv.state_dict().items()}
    )
    patches = nn.functional.unfold(images(), (3, 2), (1, 2), (1, 2), (2, 1))
    outputs = conv(images())
    expected = dense(patches.mT).mT.unflatten(-1, outputs.shape[2:])
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_identity_start_is_the_linear_layer_bit_for_bit() -> None:
    layer = QuadraticLinear(8, 6)
    x = torch.randn(5, 8)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight_a, layer.bias_a))
    layer(x).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())  # no branch is stuck there
    other = QuadraticLinear(8, 6, terms="squares+linear")
    assert torch.equal(other(x), nn.functional.linear(x, other.weight_c, other.bias_c))


def test_a_network_draws_the_parameters_of_its_layers_from_its_generator() -> None:
    network = MLP((8,), 3, (2000,), layer=lambda n, m: QuadraticLinear(n, m, gain=2**0.5))
    drawn, again = (network.init(torch.Generator().manual_seed(0)) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in drawn.items())
    assert drawn["layers.0.weight_a"].std().item() == pytest.approx(0.5, rel=0.05)
    assert not drawn["layers.0.weight_b"].any()
    assert drawn["layers.0.bias_b"].eq(1).all()
    assert drawn["layers.1.weight"].std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.05)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_branch_norms_come_before_the_product(norm) -> None:
    torch.manual_seed(0)
    layer = QuadraticConv2d(4, 6, 3, init="unit_variance", norm=norm)
    x = 10 * images()
    a, b, c = (
        layer.norms[k[-1]](nn.functional.conv2d(x, w))
        for k, w in layer.named_parameters()
        if k.startswith("weight")
    )
    torch.testing.assert_close(layer(x), a * b + c)
    dims = (0, 2, 3) if norm == "batch" else (1, 2, 3)
    torch.testing.assert_close(
        a.square().mean(dims), torch.ones(len(a.mean(dims))), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("recompute", [0, 1, 2])
def test_autocast(recompute) -> None:
    layer = QuadraticLinear(8, 6, recompute=recompute)
    x = torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(x)
    outputs.float().sum().backward()
    assert outputs.dtype == torch.bfloat16
    assert layer.weight_b.grad.dtype == torch.float32
    torch.testing.assert_close(outputs.float(), layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "make", [lambda: MLP((4,), 3, (6, 5)), lambda: CNN((4, 7, 8), 3, (6, 5), norm=True)]
)
@pytest.mark.parametrize("terms", ["product+linear", "product", "form+linear"])
def test_quadratize_keeps_the_function_and_then_trains(make, terms) -> None:
    torch.manual_seed(0)
    network = make()
    x = images()[:, :, :1, 0].flatten(1)
    x = x if isinstance(network, MLP) else images()
    before = network(x)
    assert quadratize(network, terms=terms) is network
    assert torch.equal(network(x), before)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    assert network(x).square().sum() < before.square().sum()


def test_quadratize_keeps_what_it_is_told_and_tied_weights_tied() -> None:
    layer = nn.Linear(4, 4, bias=False)
    network = Wire(
        lambda m, x: m.head(m.second(m.first(x).relu())),
        first=layer,
        second=layer,
        head=nn.Linear(4, 2),
    )
    network.head.weight.requires_grad_(False)
    before = network(torch.ones(2, 4))
    quadratize(network, keep=["head"], recompute=1)
    assert network.first is network.second
    assert network.first.weight_a is layer.weight
    assert network.first.recompute == 1
    assert type(network.head) is nn.Linear
    assert torch.equal(network(torch.ones(2, 4)), before)
    assert isinstance(quadratize(nn.Linear(3, 2)), QuadraticLinear)
    conv = nn.Conv2d(4, 6, 3, 2, "valid", groups=2, padding_mode="reflect").double().eval()
    turned = quadratize(conv)
    assert torch.equal(turned(images().double()), conv(images().double()))
    assert not turned.training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuadraticLinear(0, 3), "in_features must be at least 1, got 0"),
        (
            lambda: QuadraticLinear(2, 3, terms="cubic"),
            r"terms must be different names of .* got \['cubic'\]",
        ),
        (lambda: QuadraticLinear(2, 3, terms="linear+linear"), "terms must be different names"),
        (lambda: QuadraticLinear(2, 3, init="zero"), "init must be one of .* got 'zero'"),
        (lambda: QuadraticLinear(2, 3, gain=0.0), "gain must be positive, got 0.0"),
        (lambda: QuadraticLinear(2, 3, norm="instance"), "norm must be one of .* got 'instance'"),
        (lambda: QuadraticLinear(2, 3, recompute=3), "recompute must be 0, 1 or 2, got 3"),
        (
            lambda: QuadraticLinear(2, 3, bias=False),
            "init 'identity' needs biases and no norms, .* got no bias",
        ),
        (
            lambda: QuadraticLinear(2, 3, norm="batch"),
            "init 'identity' needs biases and no norms, .* norm 'batch'",
        ),
        (
            lambda: QuadraticLinear(2, 3, terms="square+linear"),
            "init 'identity' needs a product or a linear term",
        ),
        (
            lambda: QuadraticConv2d(4, 6, 3, terms="form+linear", groups=2),
            "'form' needs groups=1, got 2",
        ),
        (lambda: QuadraticConv2d(4, 6, 3, groups=3), "in_channels must be divisible by groups"),
        (lambda: quadratize(nn.ReLU()), "ReLU has no linear or convolutional layer to replace"),
        (lambda: quadratize(nn.Linear(1, 1), keep=["head"]), r"got \['head'\]; there are \[''\]"),
    ],
)
def test_bad_values_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()

"""Quadratic neurons: gradients, what one neuron can do, what is remembered, how outputs start."""

from itertools import product as pairs

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from tasks.networks.product import Branch, product
from tasks.networks.quadratic import QuadraticConv2d, QuadraticLinear
from tests.cases import others_slow

TYPES = (
    "product+linear",
    "form",
    "form+linear",
    "form+squares",
    "square",
    "squares",
    "product",
    "product+squares",
)
MAPS = {  # geometry, shapes of inputs and weight
    "linear": (None, (5, 3), (4, 3)),
    "linear_3d": (None, (2, 5, 3), (4, 3)),
    "conv": (((2, 1), (1, 0), (1, 2), 1), (2, 2, 5, 6), (4, 2, 3, 2)),
    "grouped_conv": (((1, 1), (1, 1), (1, 1), 2), (2, 4, 4, 4), (6, 2, 3, 3)),
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def factors(name: str, *, bias: bool = True) -> list[Tensor | None]:
    """Inputs, and weight and bias of both factors."""
    _, inputs, weight = MAPS[name]
    biases = [draw(weight[0], seed=i) if bias else None for i in (3, 4)]
    return [draw(*inputs), draw(*weight, seed=1), biases[0], draw(*weight, seed=2), biases[1]]


GRADIENTS = list(pairs(MAPS, (1, 2), (True, False)))
WITH_BIAS = [(name, recompute, bias) for name, recompute, bias in GRADIENTS if bias]


@pytest.mark.parametrize(("name", "recompute", "bias"), others_slow(GRADIENTS, WITH_BIAS))
def test_gradients_equal_autograd_and_differences(name, recompute, bias) -> None:
    geometry = MAPS[name][0]
    tensors = factors(name, bias=bias)

    def function(inputs: Tensor, *rest: Tensor, recompute: int = recompute) -> Tensor:
        remaining = iter(rest)
        branches = [next(remaining) if t is not None else None for t in tensors[1:]]
        return product(geometry, inputs, Branch(*branches[:2]), Branch(*branches[2:]), recompute)

    leaves = [t.requires_grad_() for t in tensors if t is not None]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)
    outputs = function(*leaves)
    plain = function(*leaves, recompute=0)
    assert torch.equal(outputs, plain)
    weights = draw(*outputs.shape, seed=5)
    ours = torch.autograd.grad(outputs, leaves, weights)
    for left, right in zip(ours, torch.autograd.grad(plain, leaves, weights), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_gradients_equal_the_closed_form() -> None:
    """With G the gradient of the outputs: dW_a = (G v)^T x, db_a = sum G v, and so on."""
    torch.manual_seed(0)
    layer = QuadraticLinear(3, 4, init="unit_variance").double()
    x = draw(5, 3).requires_grad_()
    g = draw(5, 4, seed=1)
    a = layer.weight_a
    b = layer.weight_b
    c = layer.weight_c
    u = x @ a.T + layer.bias_a
    v = x @ b.T + layer.bias_b
    layer(x).backward(g)
    expected = {"weight_a": (g * v).T @ x, "weight_b": (g * u).T @ x, "weight_c": g.T @ x}
    expected |= {"bias_a": (g * v).sum(0), "bias_b": (g * u).sum(0), "bias_c": g.sum(0)}
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    torch.testing.assert_close(x.grad, (g * v) @ a + (g * u) @ b + g @ c)


@pytest.mark.parametrize(("name", "recompute"), list(pairs(MAPS, (1, 2))))
def test_function_transforms(name, recompute) -> None:
    """vmap over chains of the gradient, and the gradient of a gradient step.

    The latter is what backpropagation through training takes.
    """
    geometry = MAPS[name][0]
    tensors = factors(name)
    chains = [torch.stack([t, 2 * t, -t]) for t in tensors]

    def loss(tensors: list[Tensor], recompute: int) -> Tensor:
        inputs, *rest = tensors
        return (
            product(geometry, inputs, Branch(*rest[:2]), Branch(*rest[2:]), recompute)
            .square()
            .mean()
        )

    def after_a_step(tensors: list[Tensor], recompute: int) -> Tensor:
        steps = grad(loss)(tensors, recompute)
        return loss([t - 0.1 * step for t, step in zip(tensors, steps, strict=True)], recompute)

    for function in (grad(loss), grad(after_a_step)):
        ours, plain = (vmap(lambda t, r=r, f=function: f(t, r))(chains) for r in (recompute, 0))
        for left, right in zip(ours, plain, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("terms", TYPES)
def test_outputs_are_polynomials_of_degree_two(terms) -> None:
    """Third differences along a line vanish, second differences do not."""
    torch.manual_seed(0)
    layer = QuadraticLinear(4, 6, terms=terms, init="unit_variance").double()
    start = draw(4)
    step = draw(4, seed=1)
    values = layer(start + torch.arange(4)[:, None] * step)
    assert values.diff(n=3, dim=0).abs().max() < 1e-13 * values.abs().max()
    assert values.diff(n=2, dim=0).abs().min() > 1e-3


def test_types_are_special_cases_of_each_other() -> None:
    torch.manual_seed(0)
    x = draw(5, 4)
    full = QuadraticLinear(4, 3, terms="form+linear", init="unit_variance").double()
    expected = torch.einsum("bi,mij,bj->bm", x, full.weight_f, x) + functional.linear(
        x, full.weight_c, full.bias_c
    )
    torch.testing.assert_close(full(x), expected)
    ours = QuadraticLinear(4, 3).double()
    ours.load_state_dict(
        {name: draw(*p.shape, seed=i) for i, (name, p) in enumerate(ours.state_dict().items())}
    )
    with torch.no_grad():
        ours.bias_a.zero_(), ours.bias_b.zero_()
        full.weight_f.copy_(torch.einsum("mi,mj->mij", ours.weight_a, ours.weight_b))
        full.weight_c.copy_(ours.weight_c), full.bias_c.copy_(ours.bias_c)
        torch.testing.assert_close(ours(x), full(x))
        square = QuadraticLinear(4, 3, terms="square", init="unit_variance").double()
        square.weight_s.copy_(ours.weight_a)
        ours.weight_b.copy_(ours.weight_a), ours.weight_c.zero_(), ours.bias_c.zero_()
        torch.testing.assert_close(ours(x), square(x))
        squares = QuadraticLinear(4, 3, terms="squares", init="unit_variance").double()
        torch.testing.assert_close(
            squares(x), functional.linear(x * x, squares.weight_d, squares.bias_d)
        )


@pytest.mark.parametrize(
    ("terms", "parameters", "multiply_adds"),
    [
        ("product+linear", 3 * 8, 3 * 7 + 1),
        ("form", 49, 49 + 7),
        ("form+linear", 49 + 8, 49 + 2 * 7),
        ("form+squares", 49 + 8, 49 + 3 * 7),
        ("square", 8, 7 + 1),
        ("squares", 8, 2 * 7),
        ("product", 2 * 8, 2 * 7 + 1),
        ("product+squares", 3 * 8, 4 * 7 + 1),
    ],
)
def test_counts_of_a_neuron(terms, parameters, multiply_adds) -> None:
    layer = QuadraticLinear(7, 2, terms=terms, init="unit_variance")
    assert sum(p.numel() for p in layer.parameters()) == 2 * parameters
    assert layer.multiply_adds == 2 * multiply_adds


def fit(layer: nn.Module, x: Tensor, inside: Tensor, steps: int = 200) -> float:
    """Share of points on the right side of 0 after training one neuron."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    target = inside.double()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(layer(x)[:, 0], target).backward()
        optimizer.step()
    return ((layer(x)[:, 0] > 0) == inside).double().mean().item()


def test_one_neuron_separates_xor() -> None:
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    exact = QuadraticLinear(2, 1).double()
    xor = torch.tensor([False, True, True, False])
    with torch.no_grad():  # -2 x1 x2 + x1 + x2
        for name, value in {"weight_a": [-2, 0], "weight_b": [0, 1], "weight_c": [1, 1]}.items():
            getattr(exact, name).copy_(torch.tensor([value]))
        exact.bias_b.zero_()
        assert torch.equal(exact(corners)[:, 0], xor.double())
    torch.manual_seed(0)
    assert fit(QuadraticLinear(2, 1, init="unit_variance").double(), corners, xor) == 1
    assert fit(nn.Linear(2, 1).double(), corners, xor) < 1


def test_one_neuron_separates_a_disc_from_a_ring_if_its_form_can_be_definite() -> None:
    """A ring crosses all regions of a form with eigenvalues of both signs, or of rank one.

    So is that of ``product+linear``.
    """
    angle = 3 * draw(100)
    radius = torch.tensor([0.5, 1.5]).repeat(50)
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    inside = radius < 1
    torch.manual_seed(0)
    for terms, separates in [
        ("product+squares", True),
        ("squares", True),
        ("form", False),
        ("product+linear", False),
    ]:
        shares = [
            fit(QuadraticLinear(2, 1, terms=terms, init="unit_variance").double(), x, inside)
            for _ in range(2)
        ]
        assert (max(shares) == 1) == separates, (terms, shares)  # the bare form has no constant


def remembered(layer: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for its backward pass, beside inputs and parameters."""
    kept: dict[int, int] = {}
    known = {t.untyped_storage().data_ptr() for t in (x, *layer.parameters())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = layer(x)  # alive until the end, so that no storage is used twice
    assert outputs.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("recompute", [0, 1, 2])
def test_recomputation_remembers_that_many_factors_less(recompute) -> None:
    x = draw(32, 8, dtype=torch.float32).requires_grad_()
    assert (
        remembered(QuadraticLinear(8, 16, recompute=recompute), x) == 4 * (2 - recompute) * 32 * 16
    )
    image = draw(2, 3, 8, 8, dtype=torch.float32).requires_grad_()
    assert (
        remembered(QuadraticConv2d(3, 4, 3, recompute=recompute), image)
        == 4 * (2 - recompute) * 2 * 4 * 6 * 6
    )


@pytest.mark.parametrize("terms", TYPES)
def test_unit_variance_start(terms) -> None:
    """Mean square over neurons of one input of mean square 1, within four standard errors."""
    torch.manual_seed(1)
    x = draw(32, dtype=torch.float32)
    x = x / x.square().mean().sqrt()
    terms_of_share = [
        float(x.pow(4).mean()) / 3 if term == "squares" else 1.0 for term in terms.split("+")
    ]
    squared = (
        QuadraticLinear(32, 4_000, terms=terms, init="unit_variance", gain=0.7)(x).detach().square()
    )
    expected = 0.7**2 * sum(terms_of_share) / len(terms_of_share)
    error = squared.std() / len(squared) ** 0.5
    assert abs(squared.mean() - expected) < 4 * error
    assert error < 0.1 * expected

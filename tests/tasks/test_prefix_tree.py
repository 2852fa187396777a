"""Prefix-tree layers against per-example loops, enumerated codes and exact counts."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from tasks.networks import prefix_gates
from tasks.networks.prefix_tree import PrefixTreeMLP
from tasks.networks.prefix_tree_linear import PrefixTreeLinear

SHAPES = [(depth, rank) for depth in (1, 2, 3) for rank in (None, 2)]


def layer(depth: int, rank: int | None = None, seed: int = 0, **options) -> PrefixTreeLinear:
    torch.manual_seed(seed)
    made = PrefixTreeLinear(5, 4, depth, rank, **options).double()
    torch.nn.init.normal_(made.bias)
    return made


def examples(count: int = 40) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def matrix(tree: PrefixTreeLinear, bits: tuple[bool, ...]) -> Tensor:
    """W(b), node by node down the heap in which the children of i are 2 i + 1 and 2 i + 2."""
    nodes = (
        tree.nodes
        if tree.rank is None
        else torch.stack([a.mT @ b for a, b in zip(tree.left, tree.right, strict=True)])
    )
    total = tree.weight
    node = 0
    for bit in bits:
        node = 2 * node + 1 + int(bit)
        total = total + nodes[node - 1]
    return total


def gates_of(tree: PrefixTreeLinear, inputs: Tensor) -> Tensor:
    return inputs @ tree.gate_weight.mT + tree.gate_bias


def loop(tree: PrefixTreeLinear, inputs: Tensor, bits: Tensor) -> Tensor:
    rows = [
        matrix(tree, tuple(code.tolist())) @ x + tree.bias
        for x, code in zip(inputs, bits, strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("depth", "rank"), SHAPES)
def test_batched_equals_per_example_loop(depth, rank) -> None:
    tree = layer(depth, rank).eval()
    inputs = examples()
    expected = loop(tree, inputs, gates_of(tree, inputs) > 0)
    torch.testing.assert_close(tree(inputs), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        tree(inputs.view(4, 10, 5)), expected.view(4, 10, 4), rtol=0, atol=1e-12
    )
    alone = torch.cat([tree(inputs[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, expected[:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_vmap_grad_and_compile_agree_with_the_plain_call(rank) -> None:
    tree = layer(3, rank)
    inputs = examples()
    params = dict(tree.named_parameters())

    def loss(p: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(tree, p, (x,)).square().sum()

    tree(inputs).square().sum().backward()
    gradients = grad(loss)({k: p.detach() for k, p in params.items()}, inputs)
    for key, parameter in params.items():
        torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-10, atol=1e-10)
    chains = {k: torch.stack([p.detach(), 0.5 * p.detach()]) for k, p in params.items()}
    many = vmap(loss, (0, None))(chains, inputs)
    for i, scale in enumerate((1.0, 0.5)):
        one = loss({k: scale * p.detach() for k, p in params.items()}, inputs)
        torch.testing.assert_close(many[i], one)
    compiled = torch.compile(
        vmap(grad(loss), (0, None)), backend="aot_eager", fullgraph=True, dynamic=False
    )(chains, inputs)
    torch.testing.assert_close({k: g[0] for k, g in compiled.items()}, gradients)


@pytest.mark.parametrize(("depth", "rank"), SHAPES)
def test_soft_equals_hard_at_saturated_gates(depth, rank) -> None:
    soft = layer(depth, rank, mode="soft")
    inputs = examples()
    with torch.no_grad():
        soft.gate_weight.mul_(1e8)
        soft.gate_bias.mul_(1e8)
    hard = soft.train()(inputs)
    torch.testing.assert_close(hard, soft.eval()(inputs), rtol=0, atol=1e-12)


def soft_loop(tree: PrefixTreeLinear, inputs: Tensor, probabilities: Tensor) -> Tensor:
    """Mean over all codes by probability: multilinear in the bits, so equal to the soft form."""
    total = inputs.new_zeros(len(inputs), tree.out_features)
    for code in product((False, True), repeat=tree.depth):
        bits = torch.tensor(code)
        weight = torch.where(bits, probabilities, 1 - probabilities).prod(1, keepdim=True)
        total = total + weight * (inputs @ matrix(tree, code).mT + tree.bias)
    return total


@pytest.mark.parametrize(("depth", "rank"), SHAPES)
def test_soft_form_is_the_mean_over_codes(depth, rank) -> None:
    tree = layer(depth, rank, mode="soft")
    inputs = examples()
    expected = soft_loop(tree, inputs, gates_of(tree, inputs).sigmoid())
    torch.testing.assert_close(tree(inputs), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("depth", "rank"), SHAPES)
def test_straight_through_gradient_is_the_soft_slope_at_the_hard_bits(depth, rank) -> None:
    tree = layer(depth, rank)
    inputs = examples()
    gates = gates_of(tree, inputs).detach().requires_grad_()
    bits = (gates > 0).double().detach()
    probabilities = bits + gates.sigmoid() - gates.sigmoid().detach()
    expected = torch.autograd.grad(soft_loop(tree, inputs, probabilities).square().sum(), gates)[0]
    tree(inputs).square().sum().backward()
    torch.testing.assert_close(tree.gate_bias.grad, expected.sum(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tree.gate_weight.grad, expected.mT @ inputs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("depth", "rank"), [(2, None), (3, 2)])
def test_gradient_of_the_gates_can_be_differentiated(depth, rank) -> None:
    """Backpropagation through training needs its slope in the nodes: a central difference tells."""
    tree = layer(depth, rank)
    inputs = examples()
    params = {k: p.detach() for k, p in tree.named_parameters()}
    key = "nodes" if rank is None else "left"

    def gate_gradient(nodes: Tensor) -> Tensor:
        def loss(bias: Tensor) -> Tensor:
            return (
                functional_call(tree, {**params, key: nodes, "gate_bias": bias}, (inputs,))
                .square()
                .mean()
            )

        return grad(loss)(params["gate_bias"]).sum()

    direction = torch.randn_like(params[key])
    step = 1e-5
    difference = gate_gradient(params[key] + step * direction) - gate_gradient(
        params[key] - step * direction
    )
    slope = (grad(gate_gradient)(params[key]) * direction).sum()
    torch.testing.assert_close(slope, difference / (2 * step), rtol=1e-6, atol=1e-8)
    assert slope.abs() > 1e-3


def test_reinforce_gradient_is_unbiased() -> None:
    """Mean over draws against the exact gradient of the expected loss; four standard errors."""
    tree = layer(2, seed=3)
    inputs = examples(4)
    targets = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = inputs.new_zeros(())
    for code in product((False, True), repeat=2):
        bits = torch.tensor(code).expand(4, 2)
        losses = (loop(tree, inputs, bits) - targets).square().sum(1)
        exact = (
            exact
            + (prefix_gates.log_probability(gates_of(tree, inputs), bits).exp() * losses).mean()
        )
    expected = torch.autograd.grad(exact, tree.gate_weight)[0]
    source = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(1500):
        outputs, log_probabilities = tree.sample(inputs, generator=source)
        losses = (outputs - targets).square().sum(1)
        surrogate = prefix_gates.reinforce_loss(losses, log_probabilities)
        draws.append(torch.autograd.grad(surrogate, tree.gate_weight)[0])
    stacked = torch.stack(draws)
    errors = (stacked.mean(0) - expected).abs() / (stacked.std(0) / len(draws) ** 0.5)
    assert errors.max() < 4
    assert expected.abs().max() > 0.1


def test_noise_reaches_the_gates_in_training_only() -> None:
    tree = layer(2, mode="noisy", noise=0.5)
    inputs = examples()
    assert (tree(inputs) - tree(inputs)).abs().max() > 1e-3
    assert torch.equal(tree.eval()(inputs), tree(inputs))
    silent = layer(2, mode="noisy", noise=0.0)
    torch.testing.assert_close(silent(inputs), layer(2, mode="soft")(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("rank", [None, 2])
def test_depth_zero_and_zero_nodes_are_a_plain_linear_layer(rank) -> None:
    inputs = examples()
    for tree in (layer(0, rank), layer(3, rank)):
        with torch.no_grad():
            for name in ("nodes", "left"):
                if hasattr(tree, name):
                    getattr(tree, name).zero_()
        plain = torch.nn.functional.linear(inputs, tree.weight, tree.bias)
        torch.testing.assert_close(tree(inputs), plain, rtol=0, atol=1e-12)
        assert tree.eval()(inputs).shape == (40, 4)


@pytest.mark.parametrize("rank", [None, 1])
def test_only_the_nodes_of_the_path_are_touched(rank) -> None:
    tree = layer(3, rank).eval()
    inputs = examples(1)
    tree(inputs).sum().backward()
    nodes = tree.nodes if rank is None else tree.left
    visited = nodes.grad.flatten(1).abs().amax(1) > 0
    path = prefix_gates.node_indices(gates_of(tree, inputs) > 0)[0]
    assert visited.nonzero().flatten().tolist() == path.tolist()
    assert prefix_gates.node_levels(3)[path].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("depth", "rank", "size", "ratio"),
    [(4, None, 64, 6.2), (4, 4, 64, 3.2), (10, 8, 256, 79.3), (10, None, 16, 186.1)],
)
def test_counts_of_parameters_and_multiply_adds(depth, rank, size, ratio) -> None:
    """papers.md 3.2; without gates and bias the ratios are those of the formulas."""
    tree = PrefixTreeLinear(size, size, depth, rank, gate="sign", bias=False).eval()
    small = size * size if rank is None else rank * 2 * size
    parameters = sum(p.numel() for p in tree.parameters())
    assert parameters == size * size + (2 ** (depth + 1) - 2) * small
    assert tree.multiply_adds == tree.active_parameters == size * size + depth * small
    assert parameters / tree.multiply_adds == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize("rank", [None, 2])
def test_multiply_adds_are_what_the_products_count(rank) -> None:
    tree = PrefixTreeLinear(6, 8, 3, rank).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tree(torch.randn(1, 6))
    assert counter.get_total_flops() == 2 * tree.multiply_adds
    assert tree.multiply_adds == 48 + 3 * (48 if rank is None else 28) + 18
    assert tree.active_parameters == tree.multiply_adds + 3 + 8


def test_every_code_starts_with_the_variance_of_he() -> None:
    torch.manual_seed(0)
    for rank in (None, 32):
        tree = PrefixTreeLinear(64, 48, 2, rank)
        for code in product((False, True), repeat=2):
            assert matrix(tree, code).var().item() == pytest.approx(2 / 64, rel=0.1)


@pytest.mark.parametrize("rank", [None, 2])
def test_penalty_weighs_nodes_by_their_level(rank) -> None:
    tree = layer(2, rank)
    nodes = tree.nodes if rank is None else tree.left.mT @ tree.right
    expected = sum(2.0 ** (1 if i < 2 else 2) * node.square().sum() for i, node in enumerate(nodes))
    torch.testing.assert_close(tree.penalty(), expected)
    assert layer(0).penalty().item() == 0


def test_sign_gates_read_the_pre_activations() -> None:
    network = PrefixTreeMLP((5,), 3, hidden_sizes=(6,), depth=2, gate="sign").eval()
    inputs = examples(8).float()
    hidden = network.embed(inputs)
    expected = loop(network.layers[0], hidden.relu(), hidden[:, :2] > 0)
    torch.testing.assert_close(network(inputs), expected)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: PrefixTreeLinear(5, 4, -1), "depth must not be negative, got -1"),
        (
            lambda: PrefixTreeLinear(5, 4, 2, rank=5),
            r"rank must be between 1 and min\(in_features, .* = 4, got 5",
        ),
        (lambda: PrefixTreeLinear(5, 4, 2, rank=0), "rank must be between 1 and .* got 0"),
        (lambda: PrefixTreeLinear(0, 4, 2), "in_features must be at least 1, got 0"),
        (
            lambda: PrefixTreeLinear(5, 4, 2, gate="tanh"),
            "gate must be one of linear, sign, got 'tanh'",
        ),
        (
            lambda: PrefixTreeLinear(5, 4, 2, mode="hard"),
            "mode must be one of straight_through, soft, noisy",
        ),
        (
            lambda: PrefixTreeLinear(5, 4, 6, gate="sign"),
            "a feature for each bit: depth must be at most 5, got 6",
        ),
        (lambda: PrefixTreeLinear(5, 4, 2, noise=-1.0), "noise must not be negative, got -1.0"),
        (lambda: PrefixTreeMLP((5,), 3, ()), "hidden_sizes must hold at least one width"),
        (
            lambda: PrefixTreeMLP((5,), 3, mode="noisy"),
            "mode must be straight_through or soft in an inner network",
        ),
        (
            lambda: prefix_gates.reinforce_loss(torch.ones(1), torch.ones(1)),
            "needs at least 2 examples, got 1",
        ),
        (
            lambda: layer(2)(examples() * float("nan")),
            "gates must be finite to be routed, got nan in entry 0 of example 0",
        ),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()

"""Nearest-prototype mixtures against brute force, loops and exact counts; loading of experts."""

from itertools import groupby

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from learned_opt.symmetry import infer_permutation_spec
from tasks.networks import prototypes
from tasks.networks.dispatch import dispatch
from tasks.networks.moe import MoEMLP, NearestPrototypeMoE, annealed
from tasks.networks.moe_loading import load_moe, save_moe


def mixture(num_experts: int = 7, depth: int = 3, seed: int = 0, **options) -> NearestPrototypeMoE:
    torch.manual_seed(seed)
    made = NearestPrototypeMoE(5, 2, num_experts, depth, width=4, **options).double()
    for bias in [*made.biases, *made.slopes]:
        torch.nn.init.normal_(bias)
    return made


def examples(count: int = 60, size: int = 5) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def expert(made: NearestPrototypeMoE, i: int, x: Tensor) -> Tensor:
    """One expert on one input, by torch.nn's own layers."""
    for j, weight in enumerate(made.weights):
        if j and made.slopes:
            x = torch.nn.functional.prelu(x.unsqueeze(0), made.slopes[j - 1][i]).squeeze(0)
        elif j:
            x = x.relu()
        x = weight[i] @ x + made.biases[j][i]
    return x if made.weights else made.biases[0][i]


def brute_force(made: NearestPrototypeMoE, inputs: Tensor) -> Tensor:
    return (inputs.unsqueeze(1) - made.prototypes).square().sum(-1).argmin(1)


def loop(made: NearestPrototypeMoE, inputs: Tensor) -> Tensor:
    return torch.stack(
        [expert(made, int(i), x) for x, i in zip(inputs, brute_force(made, inputs), strict=True)]
    )


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("activation", ["prelu", "relu"])
def test_batched_equals_per_example_loop(depth, activation) -> None:
    made = mixture(depth=depth, activation=activation)
    inputs = examples()
    expected = loop(made, inputs)
    torch.testing.assert_close(made(inputs), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        made(inputs.view(3, 20, 5)), expected.view(3, 20, 2), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("temperature", [pytest.param(None, marks=pytest.mark.slow), 0.7])
def test_vmap_grad_and_compile_agree_with_the_plain_call(temperature) -> None:
    made = mixture(depth=2, temperature=temperature)
    inputs = examples()
    params = {k: p.detach() for k, p in made.named_parameters()}

    def loss(p: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(made, p, (x,)).square().sum()

    made(inputs).square().sum().backward()
    plain = {
        k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in made.named_parameters()
    }
    torch.testing.assert_close(grad(loss)(params, inputs), plain, rtol=1e-10, atol=1e-10)
    chains = {k: torch.stack([p, 0.5 * p]) for k, p in params.items()}
    many = vmap(loss, (0, None))(chains, inputs)
    torch.testing.assert_close(many[1], loss({k: 0.5 * p for k, p in params.items()}, inputs))
    compiled = torch.compile(
        vmap(grad(loss), (0, None)), backend="aot_eager", fullgraph=True, dynamic=False
    )
    torch.testing.assert_close({k: g[0] for k, g in compiled(chains, inputs).items()}, plain)


def test_router_is_the_nearest_prototype_and_ties_go_to_the_lowest() -> None:
    made = mixture(20)
    inputs = examples(500)
    made.init_prototypes(inputs)
    choice = made.route(inputs)
    assert torch.equal(choice, brute_force(made, inputs))
    assert choice.unique().numel() == 20  # no cell is empty
    points = torch.tensor([[0.0], [2.0], [2.0], [4.0]])
    assert prototypes.nearest(torch.tensor([[1.0], [2.0], [3.0]]), points).tolist() == [0, 1, 1]


def grid(side: int, dims: int) -> Tensor:
    ticks = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(*[ticks] * dims).reshape(-1, dims)


@pytest.mark.parametrize(
    ("side", "dims", "arity"), [(8, 1, 2), (9, 1, 3), (4, 2, 2), (4, 2, 4), (4, 3, 2)]
)
def test_tree_equals_flat_where_cells_nest(side, dims, arity) -> None:
    points = grid(side, dims)
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    points = points[prototypes.tree_order(points, arity)]
    inputs = torch.rand(400, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaves = prototypes.descend(inputs, prototypes.tree_levels(points, arity), arity)
    assert torch.equal(leaves, prototypes.nearest(inputs, points))


def test_tree_visits_every_leaf_when_the_levels_are_not_full() -> None:
    """Where cells do not nest the tree is another router: it chooses as a descent by hand."""
    points = examples(11, 2)
    inputs = examples(400, 2)
    points = points[prototypes.tree_order(points, 3)]
    leaves = prototypes.descend(inputs, prototypes.tree_levels(points, 3), 3)
    for x, leaf in zip(inputs[:50], leaves.tolist(), strict=False):
        members = list(range(11))
        for span in (9, 3, 1):
            groups = [list(group) for _, group in groupby(members, key=lambda m: m // span)]
            squares = [float((points[group].mean(0) - x).square().sum()) for group in groups]
            members = groups[squares.index(min(squares))]
        assert members == [leaf]
    assert (leaves == prototypes.nearest(inputs, points)).double().mean() > 0.6
    at_home = prototypes.descend(points, prototypes.tree_levels(points, 11), 11)
    assert at_home.tolist() == list(range(11))  # one level is flat routing


def test_active_parameters_do_not_grow_with_the_experts() -> None:
    sizes = {count: NearestPrototypeMoE(8, 3, count, 2, 6, tree_arity=2) for count in (1, 4, 64)}
    assert {made.active_parameters for made in sizes.values()} == {8 * 6 + 6 + 6 + 6 * 3 + 3}
    for count, made in sizes.items():
        assert sum(p.numel() for p in made.parameters()) == count * (8 + made.active_parameters)
        inputs = torch.randn(1, 8)
        made(inputs).sum().backward()
        touched = [
            p.grad.flatten(1).abs().amax(1) > 0
            for k, p in made.named_parameters()
            if k != "prototypes"
        ]
        assert all(rows.sum() <= 1 for rows in touched)
    assert [made.multiply_adds - 66 for made in sizes.values()] == [0, 2 * 2 * 8, 2 * 6 * 8]
    assert NearestPrototypeMoE(8, 3, 64, 2, 6).multiply_adds == 66 + 64 * 8


def test_slopes_one_and_zero_are_linear_and_relu() -> None:
    made = mixture(depth=2)
    inputs = examples()
    with torch.no_grad():
        made.slopes[0].fill_(1.0)
    rows = brute_force(made, inputs)
    affine = (made.weights[1] @ made.weights[0])[rows] @ inputs.unsqueeze(-1)
    shift = (made.weights[1] @ made.biases[0].unsqueeze(-1)).squeeze(-1) + made.biases[1]
    torch.testing.assert_close(made(inputs), affine.squeeze(-1) + shift[rows])
    with torch.no_grad():
        made.slopes[0].fill_(0.0)
    plain = mixture(depth=2, activation="relu")
    plain.load_state_dict({k: v for k, v in made.state_dict().items() if "slopes" not in k})
    torch.testing.assert_close(made(inputs), plain(inputs), rtol=0, atol=0)


def test_experts_and_prototypes_permute_together() -> None:
    made = mixture()
    inputs = examples()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    moved = mixture()
    moved.load_state_dict({k: v[order] for k, v in made.state_dict().items()})
    torch.testing.assert_close(moved(inputs), made(inputs), rtol=0, atol=1e-12)
    moved.prototypes.data = made.prototypes.data
    assert (moved(inputs) - made(inputs)).abs().max() > 0.1  # negative control


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_the_expert_axis_is_one_free_name(temperature) -> None:
    network = MoEMLP((5,), 3, num_experts=4, temperature=temperature)
    spec = infer_permutation_spec(network, examples(30))
    stacked = {names[0] for names in spec.axes.values()}
    assert len(stacked) == 1
    assert not stacked & set(spec.fixed)


def test_soft_assignment_becomes_hard_as_the_temperature_falls() -> None:
    made = mixture()
    inputs = examples()
    hard = made(inputs)
    gaps = []
    for progress in (0.0, 0.4, 1.0):
        made.temperature = annealed(progress, start=10.0, end=1e-5)
        gaps.append((made.train()(inputs) - hard).abs().max().item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-9
    assert torch.equal(made.eval()(inputs), hard)
    assert annealed(0.5, 4.0, 1.0) == pytest.approx(2.0)
    weights = made.assign(inputs, 0.7)
    squares = (inputs.unsqueeze(1) - made.prototypes).square().sum(-1)
    torch.testing.assert_close(weights, (-squares / 0.7).softmax(1))


def test_dispatch_splits_and_pads_groups_to_the_mean() -> None:
    even = torch.arange(64) % 8
    skewed = torch.cat([torch.zeros(32, dtype=torch.long), torch.arange(1, 33)])
    assert (dispatch(even).capacity, len(dispatch(even).used)) == (8, 8)
    assert (dispatch(skewed).capacity, len(dispatch(skewed).used)) == (2, 32 // 2 + 32)
    for index in (even, skewed, torch.empty(0, dtype=torch.long)):
        groups = dispatch(index)
        inputs = torch.randn(len(index), 3)
        assert torch.equal(groups.combine(groups.pack(inputs)), inputs)
        placed = groups.pack(torch.ones(len(index), 1)) * groups.used.view(-1, 1, 1)
        assert torch.equal(groups.combine(placed).flatten(), index.float())


@pytest.mark.parametrize("options", [{}, {"tree_arity": 2}, {"activation": "relu", "depth": 0}])
def test_active_experts_equal_the_whole_mixture(tmp_path, options) -> None:
    made = mixture(**options)
    inputs = examples(30)
    save_moe(made, tmp_path / "moe.safetensors")
    whole = load_moe(tmp_path / "moe.safetensors").eval()
    torch.testing.assert_close(whole(inputs), made.eval()(inputs), rtol=0, atol=0)
    active = load_moe(tmp_path / "moe.safetensors", load="active", max_active=3)
    torch.testing.assert_close(active(inputs), made(inputs), rtol=0, atol=1e-12)
    reads = active.expert.cache_info()
    assert (reads.currsize, reads.misses) == (3, made.route(inputs).unique().numel())
    torch.testing.assert_close(active(inputs[:1]), active(inputs[:1]), rtol=0, atol=0)
    assert active.expert.cache_info().hits > reads.hits


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: NearestPrototypeMoE(5, 2, 0), "num_experts must be at least 1, got 0"),
        (lambda: NearestPrototypeMoE(5, 2, 3, depth=-1), "depth must not be negative, got -1"),
        (lambda: NearestPrototypeMoE(5, 2, 3, width=0), "width must be at least 1, got 0"),
        (
            lambda: NearestPrototypeMoE(5, 2, 3, activation="tanh"),
            "activation must be one of prelu, relu, got 'tanh'",
        ),
        (
            lambda: NearestPrototypeMoE(5, 2, 3, tree_arity=1),
            "tree_arity must be at least 2, got 1",
        ),
        (
            lambda: NearestPrototypeMoE(5, 2, 3, temperature=0.0),
            "temperature must be positive, got 0.0",
        ),
        (
            lambda: mixture()(examples() / 0),
            "inputs must be finite to be routed, got -?inf in entry 0 of example 0",
        ),
        (
            lambda: mixture(temperature=1.0)(examples() * torch.nan),
            "inputs must be finite to be routed, got .*nan",
        ),
        (
            lambda: mixture().init_prototypes(examples(4)),
            "at most the number of different examples, 4, got 7",
        ),
        (lambda: load_moe("x", load="some"), "load must be 'all' or 'active', got 'some'"),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()


def test_bad_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no mixture at"):
        load_moe(tmp_path / "none")
    save_moe(mixture(), tmp_path / "moe")
    with pytest.raises(ValueError, match="max_active must be at least 1, got 0"):
        load_moe(tmp_path / "moe", load="active", max_active=0)


def test_nan_stays_nan_where_it_cannot_be_refused() -> None:
    for depth in (0, 1, 2):
        made = mixture(depth=depth)
        inputs = examples(3)
        inputs[1, 2] = torch.nan
        outputs = vmap(lambda p, made=made, x=inputs: functional_call(made, p, (x,)))(
            {k: p.detach().unsqueeze(0) for k, p in made.named_parameters()}
        )[0]
        assert outputs.isnan().any(1).tolist() == [False, True, False]

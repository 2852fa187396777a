"""UNF layers against definitions: dense matrices, brute-force orbits, random permutations."""

from itertools import product

import pytest
import torch
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from learned_opt.core import tree
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNF, InvariantPool, Pointwise, PointwiseUNFLinear, UNFLinear
from learned_opt.unf.partitions import bell, num_basis, num_partitions, set_partitions
from learned_opt.unf.plan import make_plan
from tests.cases import SPECS, spec_tensors
from tests.helpers import dense_reference as dense

SMALL = [name for name in SPECS if name != "cube"]


def test_bell_numbers() -> None:
    assert [bell(n) for n in range(8)] == [1, 1, 2, 5, 15, 52, 203, 877]
    assert [len(list(set_partitions("h" * n))) for n in range(8)] == [1, 1, 2, 5, 15, 52, 203, 877]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_plan_holds_every_valid_partition_once(spec) -> None:
    plan = make_plan(spec)
    listed = {pair: [] for pair in product(spec.axes, repeat=2)}
    for group in plan.groups:
        for source, target in product(group.sources, group.targets):
            pair = (target.parameter, source.parameter)
            listed[pair].append(dense.combined_partition(target, source))
    for (out, inp), partitions in listed.items():
        assert sorted(partitions) == sorted(set_partitions((*spec.axes[out], *spec.axes[inp])))
        assert len(partitions) == num_partitions(spec.axes[out], spec.axes[inp])
    assert plan.num_basis == num_basis(spec) == UNFLinear(spec, 1, 1).num_basis


@pytest.mark.parametrize(
    "spec", [SPECS["vector"], SPECS["square"], SPECS["mlp"]], ids=["vector", "square", "mlp"]
)
def test_rank_of_the_basis_is_the_number_of_orbits(spec) -> None:
    sizes = dict.fromkeys(spec.names, 4)  # long enough for every Bell argument here
    rank = 0
    for out, inp in product(spec.axes.values(), repeat=2):
        shapes = (tuple(sizes[n] for n in out), tuple(sizes[n] for n in inp))
        partitions = set_partitions((*out, *inp))
        stacked = torch.stack([dense.basis_matrix(p, *shapes).flatten() for p in partitions])
        rank += int(torch.linalg.matrix_rank(stacked))
    assert rank == dense.num_orbits(spec, sizes) == num_basis(spec)


def test_rank_drops_when_a_name_is_short() -> None:
    """papers.md 1.1: n = 3, (h, h) -> (h, h) has 15 functions of rank 14."""
    stacked = torch.stack(
        [dense.basis_matrix(p, (3, 3), (3, 3)).flatten() for p in set_partitions("hhhh")]
    )
    assert len(stacked) == 15
    assert int(torch.linalg.matrix_rank(stacked)) == 14


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_layer_equals_the_dense_reference(name, bias) -> None:
    spec = SPECS[name]
    layer = UNFLinear(spec, 2, 3, bias=bias).double()
    for parameter in layer.biases.values():
        torch.nn.init.normal_(parameter)
    inputs = spec_tensors(spec, 2)
    for key, expected in dense.dense_forward(layer, inputs).items():
        torch.testing.assert_close(layer(inputs)[key], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_equivariance_and_its_negative_control(spec) -> None:
    network = UNF(spec, (2, 4, 3)).double()
    inputs = spec_tensors(spec, 2)
    source = torch.Generator().manual_seed(1)
    element = spec.draw(inputs, source, with_fixed=True)
    out = network(inputs)
    out_permuted = network(spec.apply(inputs, element))
    error = max((out_permuted[k] - v).abs().max() for k, v in spec.apply(out, element).items())
    assert error < 1e-10

    first = next(name for name, axes in spec.axes.items() if axes)
    broken = dict(inputs)  # one axis of one tensor alone, which no element of the group does
    broken[first] = inputs[first].roll(1, 0)
    rolled = {k: v.roll(1, 0) if k == first else v for k, v in out.items()}
    if len(spec.axes) > 1 or len(spec.axes[first]) > 1:
        error = max((network(broken)[k] - v).abs().max() for k, v in rolled.items())
        assert error > 1e-2


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shared_channels_equal_tiled_channels(spec) -> None:
    inputs = spec_tensors(spec, 2)
    shared = torch.randn(3, dtype=torch.float64)
    tiled = {k: torch.cat([v, shared.expand(*v.shape[:-1], 3)], -1) for k, v in inputs.items()}
    for layer in (UNFLinear(spec, 5, 2).double(), Pointwise(spec, 5, 2).double()):
        for key, value in layer(tiled).items():
            torch.testing.assert_close(layer(inputs, shared)[key], value, rtol=0, atol=1e-12)


def test_invariant_pool() -> None:
    spec = SPECS["mlp"]
    inputs = spec_tensors(spec, 3)
    network = UNF(spec, (3, 4)).double()
    pooled = InvariantPool()(network(inputs))
    assert pooled.shape == (4 * len(spec.axes),)
    element = spec.draw(inputs, torch.Generator().manual_seed(0), with_fixed=True)
    torch.testing.assert_close(
        InvariantPool()(network(spec.apply(inputs, element))), pooled, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["rank3", "cnn"])
def test_vmap_over_theta_equals_loop(name) -> None:
    spec = SPECS[name]
    layers = [UNFLinear(spec, 2, 3).double() for _ in range(3)]
    thetas = [dict(layer.named_parameters()) for layer in layers]
    inputs = [spec_tensors(spec, 2, seed) for seed in range(3)]
    stacked_theta = tree.stack(thetas)
    stacked_inputs = tree.stack(inputs)
    batched = vmap(lambda theta, x: functional_call(layers[0], theta, (x,)))(
        stacked_theta, stacked_inputs
    )
    for i, layer in enumerate(layers):
        for key, value in layer(inputs[i]).items():
            torch.testing.assert_close(batched[key][i], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision_agrees_with_float64(dtype, tolerance) -> None:
    """Tolerances are about 30 times the unit roundoff of each type, for outputs of order one."""
    spec = SPECS["rank3"]
    layer = UNFLinear(spec, 2, 3).double()
    inputs = spec_tensors(spec, 2)
    exact = layer(inputs)
    low = layer.to(dtype)({k: v.to(dtype) for k, v in inputs.items()})
    for key, value in exact.items():
        assert low[key].dtype == dtype
        torch.testing.assert_close(low[key].double(), value, rtol=tolerance, atol=tolerance)


def test_compiled_equals_eager() -> None:
    spec = SPECS["rank3"]
    layer = UNFLinear(spec, 2, 3).double()
    inputs = spec_tensors(spec, 2)
    compiled = torch.compile(layer, fullgraph=True)(inputs)
    for key, value in layer(inputs).items():
        torch.testing.assert_close(compiled[key], value, rtol=0, atol=1e-12)


def test_init_and_its_errors() -> None:
    spec = SPECS["square"]
    layer = UNFLinear(spec, 64, 64)
    # every output sees (number of terms) x 64 inputs of variance 1: with lecun init each term
    # gives 1 / terms
    terms = bell(4) + bell(3)  # from w and from b to w
    weight = layer.weights["(h,h)"]
    assert weight.std().item() == pytest.approx((64 * terms) ** -0.5, rel=0.05)
    assert all((bias == 0).all() for bias in layer.biases.values())
    assert all((w == 0).all() for w in UNFLinear(spec, 2, 2, init="zero").weights.values())
    with pytest.raises(ValueError, match=r"init must be one of .* got 'xavier'"):
        UNFLinear(spec, 2, 2, init="xavier")


@pytest.mark.parametrize("name", ["mlp", "rank3"])
def test_shared_pointwise_part_and_scaled_equivariant_part(name) -> None:
    spec = SPECS[name]
    inputs = spec_tensors(spec, 2)
    layer = PointwiseUNFLinear(spec, 2, 3).double()
    for key, value in layer.pointwise(inputs).items():
        assert torch.equal(layer(inputs)[key], value)  # the equivariant part starts at zero
    for weight in layer.equivariant.parameters():
        torch.nn.init.normal_(weight)
    expected = dense.dense_forward(layer.equivariant, inputs)
    for key, axes in spec.axes.items():
        terms = sum(num_partitions(axes, other) for other in spec.axes.values())
        total = layer.pointwise(inputs)[key] + expected[key] / terms**0.5
        torch.testing.assert_close(layer(inputs)[key], total, rtol=0, atol=1e-12)


def test_the_graph_grows_with_tensors_not_with_pairs_of_them() -> None:
    """Nodes of the traced layer on chains of 8, 16 and 32 tensors: they lie on a line."""

    def num_nodes(depth: int) -> int:
        weights = {f"w{i}": (f"n{i + 1}", f"n{i}") for i in range(depth)}
        axes = weights | {f"b{i}": (f"n{i + 1}",) for i in range(depth)}
        inputs = {name: torch.randn(*[2] * len(names), 4) for name, names in axes.items()}
        return len(make_fx(UNFLinear(PermutationSpec(axes), 4, 3))(inputs).graph.nodes)

    few, some, many = map(num_nodes, (4, 8, 16))
    assert many - some <= 2.1 * (some - few)


@pytest.mark.parametrize("pair", [("a,b", ("a", "b")), ("a/b", ("a.b",)), ("a\\", ("a", "b"))])
def test_names_that_look_alike_share_no_coefficients(pair) -> None:
    """Names are people's: commas, dots and slashes in them must not make two groups one."""
    spec = PermutationSpec({"x": (pair[0],), "z": pair[1]})
    layer = UNFLinear(spec, 1, 1, bias=False)
    assert sum(weight.numel() for weight in layer.parameters()) == num_basis(spec)

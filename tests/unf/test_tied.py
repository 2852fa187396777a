"""The layer tied by type against the untied one: one theta on every weight space."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from learned_opt.core import tree
from learned_opt.inner.unroll import Unroll
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNF, PointwiseUNFLinear, TypeTied, UNFLinear
from learned_opt.unf.cells import make_blocks
from learned_opt.unf.coefficients import escape, weight_key
from learned_opt.unf.plan import Pattern
from learned_opt.unf.types import TYPES
from tests.cases import FAMILIES, OPTIMIZERS, SPECS, spec_of, spec_tensors

SMALL = {"vector", "square", "mlp"}  # no tensor of a rank above 2
CHAIN = PermutationSpec(
    {"a": ("h", "p"), "b": ("q", "h"), "c": ("r", "q"), "c_bias": ("r",)}, fixed={"p"}
)


def tied(spec: PermutationSpec, in_channels: int = 2, out_channels: int = 3) -> TypeTied:
    torch.manual_seed(0)
    layer = TypeTied(spec, in_channels, out_channels).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def terms(layer: TypeTied) -> Iterator[tuple[Pattern, Pattern, torch.Tensor]]:
    """Target, source and coefficient of every pair that a cell joins, as a plan lists them."""
    for block in layer.blocks:
        for cell in block.cells:
            for k, sources in enumerate(cell.sources):
                for d, targets in enumerate(cell.targets):
                    coefficient = layer.table[block.rows[k][d]] / len(sources)
                    for source, target in product(sources, targets):
                        yield *as_in_a_plan(target, source, layer.spec), coefficient


def as_in_a_plan(
    target: Pattern, source: Pattern, spec: PermutationSpec
) -> tuple[Pattern, Pattern]:
    """Matched blocks sorted by the name and then by the axes of the target."""
    names = [spec.axes[target.parameter][target.labels.index(block)] for block in target.kept]
    order = sorted(range(len(names)), key=lambda i: (names[i], target.kept[i]))
    target_kept = tuple(target.kept[i] for i in order)
    source_kept = tuple(source.kept[i] for i in order)
    return target._replace(kept=target_kept), source._replace(kept=source_kept)


def untied(
    layer: TypeTied, spec: PermutationSpec
) -> tuple[UNFLinear, set[tuple[Pattern, Pattern]]]:
    """The paper's layer with the coefficients of the types, and the basis maps that have one."""
    paper = UNFLinear(spec, layer.table.shape[1], layer.table.shape[2], init="zero").double()
    groups = {group.signature: group for group in paper.plan.groups}
    maps = set()
    with torch.no_grad():
        for name, kind in layer.types.items():
            paper.biases[escape(name)].copy_(layer.bias[kind])
        for target, source, row in terms(layer):
            names = tuple(
                spec.axes[target.parameter][target.labels.index(kept)] for kept in target.kept
            )
            group = groups[names]
            weight = paper.weights[weight_key(names)]
            weight[group.sources.index(source), :, group.targets.index(target)] += row
            maps.add((target, source))
    return paper, maps


@pytest.mark.parametrize("name", SPECS)
def test_layer_equals_the_untied_one_with_copied_coefficients(name) -> None:
    spec = SPECS[name]
    inputs = spec_tensors(spec, 2)
    layer = tied(spec)
    paper, maps = untied(layer, spec)
    for key, value in paper(inputs).items():
        torch.testing.assert_close(layer(inputs)[key], value, rtol=0, atol=1e-12)
    if name in SMALL:
        assert len(maps) == paper.num_basis  # every basis map of low rank has a type


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_equivariance_and_its_negative_control(spec) -> None:
    torch.manual_seed(0)
    network = UNF(spec, (2, 4, 3), trunk=TypeTied, head=TypeTied).double()
    inputs = spec_tensors(spec, 2)
    element = spec.draw(inputs, torch.Generator().manual_seed(1), with_fixed=True)
    out = network(inputs)
    permuted = network(spec.apply(inputs, element))
    assert max((permuted[k] - v).abs().max() for k, v in spec.apply(out, element).items()) < 1e-10
    if len(spec.names) > 1 or len(spec.axes) > 1:
        last = [name for name, axes in spec.axes.items() if axes][-1]
        broken = network(inputs | {last: inputs[last].roll(1, 0)})
        rolled = {k: v.roll(1, 0) if k == last else v for k, v in out.items()}
        assert max((broken[k] - v).abs().max() for k, v in rolled.items()) > 1e-3


def test_tensors_of_equal_roles_are_interchangeable() -> None:
    """Two hidden layers that swap names, and unrelated tensors of one shape that are dealt anew."""
    twins = PermutationSpec(
        {"a": ("x", "i"), "b": ("y", "i"), "c": ("e", "x"), "d": ("e", "y")}, fixed={"i", "e"}
    )
    strangers = PermutationSpec({name: (name + "0", name + "1") for name in "abcd"})
    for spec, moves in (
        (twins, {"a": "b", "b": "a", "c": "d", "d": "c"}),
        (strangers, dict(zip("abcd", "cdba", strict=True))),
    ):
        layer = tied(spec)
        inputs = spec_tensors(spec, 2)
        out = layer(inputs)
        moved = layer({moves[name]: value for name, value in inputs.items()})
        for name, value in out.items():
            torch.testing.assert_close(moved[moves[name]], value, rtol=0, atol=1e-12)
        untied = UNFLinear(spec, 2, 3).double()
        out = untied(inputs)
        moved = untied({moves[name]: value for name, value in inputs.items()})
        assert max((moved[moves[name]] - value).abs().max() for name, value in out.items()) > 1e-2


def test_one_theta_fits_every_spec() -> None:
    specs = [
        *SPECS.values(),
        *(spec_of(FAMILIES[name]()) for name in ("resnet", "lstm", "transformer", "moe_mlp")),
    ]
    shapes = {name: p.shape for name, p in tied(CHAIN).named_parameters()}
    layer = tied(CHAIN)
    for spec in specs:
        assert {name: p.shape for name, p in TypeTied(spec, 2, 3).named_parameters()} == shapes
        assert all(
            p is q for p, q in zip(layer.rebind(spec).parameters(), layer.parameters(), strict=True)
        )
    assert shapes["table"] == (183, 2, 3)
    assert len(set(TYPES)) == 183


@pytest.mark.parametrize("name", ["square", "cnn"])
def test_rebound_layer_equals_one_made_for_the_spec(name) -> None:
    spec = SPECS[name]
    inputs = spec_tensors(spec, 2)
    for first in (
        tied(CHAIN),
        PointwiseUNFLinear(CHAIN, 2, 3, equivariant=TypeTied).double(),
        _network(CHAIN),
    ):
        if isinstance(first, PointwiseUNFLinear):
            torch.nn.init.normal_(first.equivariant.table)
        fresh = {TypeTied: tied, PointwiseUNFLinear: _both, UNF: _network}[type(first)](spec)
        fresh.load_state_dict(first.state_dict())
        before = first(spec_tensors(CHAIN, 2))
        moved = first.rebind(spec)
        for key, value in fresh(inputs).items():
            assert torch.equal(moved(inputs)[key], value)
        assert all(
            torch.equal(first(spec_tensors(CHAIN, 2))[key], value) for key, value in before.items()
        )


def _both(spec: PermutationSpec) -> PointwiseUNFLinear:
    return PointwiseUNFLinear(spec, 2, 3, equivariant=TypeTied).double()


def _network(spec: PermutationSpec) -> UNF:
    return UNF(spec, (2, 4, 3), trunk=TypeTied, head=TypeTied).double()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_gradient_reaches_the_types_that_the_spec_has_and_no_other(spec) -> None:
    layer = tied(spec)
    sum(value.square().sum() for value in layer(spec_tensors(spec, 2)).values()).backward()
    reached = layer.table.grad.abs().amax((1, 2)) > 0
    assert set(reached.nonzero().flatten().tolist()) == set(layer.rows)
    assert set((layer.bias.grad.abs().amax(1) > 0).nonzero().flatten().tolist()) == set(
        layer.types.values()
    )


def test_scale_does_not_grow_with_the_number_of_tensors() -> None:
    """Every tensor holds ones: each average is one, an output a sum of coefficients of its type."""

    def outputs(depth: int) -> dict[str, torch.Tensor]:
        spec = PermutationSpec({f"w{i}": (f"n{i + 1}", f"n{i}") for i in range(depth)})
        return tied(spec)({name: torch.ones(3, 3, 2, dtype=torch.float64) for name in spec.axes})

    few = outputs(4)
    many = outputs(12)
    torch.testing.assert_close(many["w5"], few["w1"], rtol=0, atol=1e-12)
    torch.testing.assert_close(many["w11"], few["w3"], rtol=0, atol=1e-12)


def test_the_graph_grows_with_tensors_not_with_pairs_of_them() -> None:
    """All tensors read and write one stream, so that all pairs share a name."""

    def num_nodes(depth: int) -> int:
        readers = {f"in{i}": (f"m{i}", "d") for i in range(depth)}
        axes = readers | {f"out{i}": ("d", f"m{i}") for i in range(depth)}
        inputs = {name: torch.randn(*[2] * len(names), 4) for name, names in axes.items()}
        return len(make_fx(TypeTied(PermutationSpec(axes), 4, 3))(inputs).graph.nodes)

    few, some, many = map(num_nodes, (2, 4, 8))
    assert many - some <= 2.1 * (some - few)

    def num_blocks(depth: int) -> int:
        axes = {f"w{i}": ("d", f"m{i}") for i in range(depth)}
        return len(make_blocks(PermutationSpec(axes)))

    assert num_blocks(4) == num_blocks(16)  # cells of more tensors join the blocks that are there


@pytest.mark.parametrize("name", ["rank3", "cnn"])
def test_vmap_over_theta_equals_loop(name) -> None:
    spec = SPECS[name]
    inputs = spec_tensors(spec, 2)
    shared = torch.randn(3, dtype=torch.float64)
    layers = [TypeTied(spec, 5, 3).double() for _ in range(3)]
    many = tree.stack([dict(layer.named_parameters()) for layer in layers])
    batched = vmap(lambda theta: functional_call(layers[0], theta, (inputs, shared)))(many)
    for i, layer in enumerate(layers):
        for key, value in layer(inputs, shared).items():
            torch.testing.assert_close(batched[key][i], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shared_channels_equal_tiled_channels(spec) -> None:
    inputs = spec_tensors(spec, 2)
    shared = torch.randn(3, dtype=torch.float64)
    tiled = {k: torch.cat([v, shared.expand(*v.shape[:-1], 3)], -1) for k, v in inputs.items()}
    layer = tied(spec, 5)
    for key, value in layer(tiled).items():
        torch.testing.assert_close(layer(inputs, shared)[key], value, rtol=0, atol=1e-12)


def test_the_traced_layer_equals_the_layer() -> None:
    spec = SPECS["rank3"]
    inputs = spec_tensors(spec, 2)
    layer = tied(spec)
    for key, value in make_fx(layer)(inputs)(inputs).items():
        torch.testing.assert_close(value, layer(inputs)[key], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family_name", "dtype"), [("mlp", torch.float32), ("transformer", torch.float64)]
)
def test_compiled_inner_steps_equal_eager_ones(family_name, dtype) -> None:
    """float64 where a gradient is rounding alone, as that of a key's bias.

    Features at full size hand it on to all tensors.
    """

    def cast(values: dict) -> dict:
        return tree.tree_map(
            lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, values
        )

    family = FAMILIES[family_name]()
    seeds = [("chain", 0), ("chain", 1)]
    torch.manual_seed(0)
    optimizer = OPTIMIZERS["unf_tied"](spec_of(family)).to(dtype)
    torch.nn.init.normal_(optimizer.function.layers[-1].equivariant.table)
    theta = tree.contiguous(
        tree.expand({k: p.detach() for k, p in optimizer.named_parameters()}, 2)
    )
    results = []
    for compiled in (True, False):
        unroll = Unroll(family, optimizer, compile=compiled)
        chains = cast(unroll.start(seeds))
        results.append(unroll.run(theta, chains, unroll.batches(seeds, chains, 2))[1]["params"])
        assert not (compiled and unroll._compiled_step.failed)
    for key, value in results[1].items():
        torch.testing.assert_close(results[0][key], value, rtol=1e-4, atol=1e-6)


def test_factors_of_a_merged_axis_meet_partly() -> None:
    """Gates of a recurrent layer lie in one axis with hidden units, which others have alone."""
    spec = PermutationSpec(
        {"rows": ("gate", "h"), "read": ("o", "h")}, fixed={"gate", "o"}, views={"rows": ((2, 4),)}
    )
    blocks = make_blocks(spec)
    rows = [row for block in blocks for source_rows in block.rows for row in source_rows]
    partly = {TYPES[row].source for row in rows if TYPES[row].relation == "partly"}
    assert partly == {("vector", "out"), ("matrix", "in")}
    inputs = spec_tensors(spec, 2) | {"rows": torch.randn(2, 4, 2, dtype=torch.float64)}
    inputs["read"] = torch.randn(2, 4, 2, dtype=torch.float64)
    layer = tied(spec)
    element = {
        "gate": torch.tensor([1, 0]),
        "h": torch.tensor([2, 0, 3, 1]),
        "o": torch.tensor([1, 0]),
    }
    bare = PermutationSpec(spec.axes)
    moved = layer(bare.apply(inputs, element))
    for key, value in bare.apply(layer(inputs), element).items():
        torch.testing.assert_close(moved[key], value, rtol=0, atol=1e-12)

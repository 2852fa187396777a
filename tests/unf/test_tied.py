"""The layer tied by type against the untied one, and what it is for: one theta on every weight space."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from learned_opt.core import tree
from learned_opt.deploy import construct, pretrained
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNF, PointwiseUNFLinear, TypeTied, UNFLinear
from learned_opt.unf.cells import make_blocks
from learned_opt.unf.layers import escape, weight_key
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
            for (k, sources), (d, targets) in product(
                enumerate(cell.sources), enumerate(cell.targets)
            ):
                for source, target in product(sources, targets):
                    yield (
                        *as_in_a_plan(target, source, layer.spec),
                        layer.table[block.rows[k][d]] / len(sources),
                    )


def as_in_a_plan(
    target: Pattern, source: Pattern, spec: PermutationSpec
) -> tuple[Pattern, Pattern]:
    """Matched blocks sorted by the name and then by the axes of the target."""
    names = [spec.axes[target.parameter][target.labels.index(block)] for block in target.kept]
    order = sorted(range(len(names)), key=lambda i: (names[i], target.kept[i]))
    target, source = (p._replace(kept=tuple(p.kept[i] for i in order)) for p in (target, source))
    return target, source


def untied(
    layer: TypeTied, spec: PermutationSpec
) -> tuple[UNFLinear, set[tuple[Pattern, Pattern]]]:
    """The paper's layer with the coefficients of the types, and the basis maps that have one."""
    paper = UNFLinear(spec, layer.table.shape[1], layer.table.shape[2], init="zero").double()
    groups, maps = {group.signature: group for group in paper.plan.groups}, set()
    with torch.no_grad():
        for name, kind in layer.types.items():
            paper.biases[escape(name)].copy_(layer.bias[kind])
        for target, source, row in terms(layer):
            names = tuple(
                spec.axes[target.parameter][target.labels.index(kept)] for kept in target.kept
            )
            group, weight = groups[names], paper.weights[weight_key(names)]
            weight[group.sources.index(source), :, group.targets.index(target)] += row
            maps.add((target, source))
    return paper, maps


@pytest.mark.parametrize("name", SPECS)
def test_layer_equals_the_untied_one_with_copied_coefficients(name) -> None:
    spec, inputs = SPECS[name], spec_tensors(SPECS[name], 2)
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
    out, permuted = network(inputs), network(spec.apply(inputs, element))
    assert max((permuted[k] - v).abs().max() for k, v in spec.apply(out, element).items()) < 1e-10
    if len(spec.names) > 1 or len(spec.axes) > 1:
        last = [name for name, axes in spec.axes.items() if axes][-1]
        broken = network(inputs | {last: inputs[last].roll(1, 0)})
        rolled = {k: v.roll(1, 0) if k == last else v for k, v in out.items()}
        assert max((broken[k] - v).abs().max() for k, v in rolled.items()) > 1e-3


def test_tensors_of_equal_roles_are_interchangeable() -> None:
    """Two hidden layers that swap names, and a set of unrelated tensors of one shape that are dealt anew."""
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
        out, moved = untied(inputs), untied({moves[name]: value for name, value in inputs.items()})
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
    spec, inputs = SPECS[name], spec_tensors(SPECS[name], 2)
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
    """Every tensor holds ones: each average is one, and an output is a sum of coefficients of its own type."""

    def outputs(depth: int) -> dict[str, torch.Tensor]:
        spec = PermutationSpec({f"w{i}": (f"n{i + 1}", f"n{i}") for i in range(depth)})
        return tied(spec)({name: torch.ones(3, 3, 2, dtype=torch.float64) for name in spec.axes})

    few, many = outputs(4), outputs(12)
    torch.testing.assert_close(many["w5"], few["w1"], rtol=0, atol=1e-12)
    torch.testing.assert_close(many["w11"], few["w3"], rtol=0, atol=1e-12)


def test_the_graph_grows_with_tensors_not_with_pairs_of_them() -> None:
    """All tensors read and write one stream, so that all pairs share a name."""

    def num_nodes(depth: int) -> int:
        axes = {f"in{i}": (f"m{i}", "d") for i in range(depth)} | {
            f"out{i}": ("d", f"m{i}") for i in range(depth)
        }
        inputs = {name: torch.randn(*[2] * len(names), 4) for name, names in axes.items()}
        return len(make_fx(TypeTied(PermutationSpec(axes), 4, 3))(inputs).graph.nodes)

    few, some, many = map(num_nodes, (2, 4, 8))
    assert many - some <= 2.1 * (some - few)
    blocks = {
        len(make_blocks(PermutationSpec({f"w{i}": ("d", f"m{i}") for i in range(n)})))
        for n in (4, 16)
    }
    assert len(blocks) == 1  # cells of more tensors join the blocks that are there


@pytest.mark.parametrize("name", ["rank3", "cnn"])
def test_vmap_over_theta_equals_loop(name) -> None:
    spec, inputs, shared = (
        SPECS[name],
        spec_tensors(SPECS[name], 2),
        torch.randn(3, dtype=torch.float64),
    )
    layers = [TypeTied(spec, 5, 3).double() for _ in range(3)]
    many = {
        k: torch.stack([dict(layer.named_parameters())[k] for layer in layers])
        for k in ("table", "bias")
    }
    batched = vmap(lambda theta: functional_call(layers[0], theta, (inputs, shared)))(many)
    for i, layer in enumerate(layers):
        for key, value in layer(inputs, shared).items():
            torch.testing.assert_close(batched[key][i], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shared_channels_equal_tiled_channels(spec) -> None:
    inputs, shared = spec_tensors(spec, 2), torch.randn(3, dtype=torch.float64)
    tiled = {k: torch.cat([v, shared.expand(*v.shape[:-1], 3)], -1) for k, v in inputs.items()}
    layer = tied(spec, 5)
    for key, value in layer(tiled).items():
        torch.testing.assert_close(layer(inputs, shared)[key], value, rtol=0, atol=1e-12)


def test_the_traced_layer_equals_the_layer() -> None:
    spec, inputs = SPECS["rank3"], spec_tensors(SPECS["rank3"], 2)
    layer = tied(spec)
    for key, value in make_fx(layer)(inputs)(inputs).items():
        torch.testing.assert_close(value, layer(inputs)[key], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family_name", "dtype"), [("mlp", torch.float32), ("transformer", torch.float64)]
)
def test_compiled_inner_steps_equal_eager_ones(family_name, dtype) -> None:
    """float64 where a gradient is rounding alone (a key's bias): features at full size hand it on to all tensors."""

    def cast(values: dict) -> dict:
        return tree.tree_map(
            lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, values
        )

    family, seeds = FAMILIES[family_name](), [("chain", 0), ("chain", 1)]
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
        assert not (compiled and unroll._batched_step.failed)
    for key, value in results[1].items():
        torch.testing.assert_close(results[0][key], value, rtol=1e-4, atol=1e-6)


def test_factors_of_a_merged_axis_meet_partly() -> None:
    """Gates of a recurrent layer lie in one axis with the hidden units, which other tensors have alone."""
    spec = PermutationSpec(
        {"rows": ("gate", "h"), "read": ("o", "h")}, fixed={"gate", "o"}, views={"rows": ((2, 4),)}
    )
    blocks = make_blocks(spec)
    partly = {
        TYPES[row].source
        for block in blocks
        for rows in block.rows
        for row in rows
        if TYPES[row][0] == "partly"
    }
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


def test_constructors_return_their_own_class() -> None:
    for kind in (UNFLinear, TypeTied, PointwiseUNFLinear):
        assert type(kind(CHAIN, 1, 1)) is kind
    with pytest.raises(TypeError, match="tie"):
        UNFLinear(CHAIN, 1, 1, tie="type")


@pytest.mark.parametrize("layer", ["UNFLinear", "PointwiseUNFLinear"])
@pytest.mark.parametrize(("tie", "kind"), [("tensor", UNFLinear), ("type", TypeTied)])
def test_a_theta_json_from_when_tie_was_an_argument_makes_the_same_layer(layer, tie, kind) -> None:
    head = {"_target_": f"learned_opt.unf.layers.{layer}", "_partial_": True, "init": "he"}
    node = {
        "_target_": "learned_opt.optimizers.unf.UNFOptimizer",
        "_partial_": True,
        "head": head | {"tie": tie},
        "channels": 4,
    }
    torch.manual_seed(0)
    made = construct.build(node, CHAIN)
    torch.manual_seed(0)
    constructor = {
        "UNFLinear": partial(kind, init="he"),
        "PointwiseUNFLinear": partial(PointwiseUNFLinear, init="he", equivariant=kind),
    }
    expected = UNFOptimizer(CHAIN, head=constructor[layer], channels=4)
    assert repr(made) == repr(expected)
    assert made.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], value)


def test_an_unknown_tie_is_refused() -> None:
    head = {"_target_": "learned_opt.unf.layers.UNFLinear", "_partial_": True, "tie": "name"}
    node = {"_target_": "learned_opt.optimizers.unf.UNFOptimizer", "_partial_": True, "head": head}
    with pytest.raises(ValueError, match=r"does not take these arguments: .*tie"):
        construct.build(node, CHAIN)


def test_bad_values_are_named() -> None:
    folded = PermutationSpec({"w": ("h", "p")}, fixed={"p"}, fixed_sizes={"p": 2}, folded={"p"})
    message = r"TypeTied cannot read fixed axes as channels, but \['p'\] are folded"
    for layer in (TypeTied, partial(PointwiseUNFLinear, equivariant=TypeTied)):
        with pytest.raises(ValueError, match=message):
            layer(folded, 1, 1)
    with pytest.raises(ValueError, match="theta of UNFLinear belongs to one weight space"):
        UNFLinear(CHAIN, 1, 1).rebind(SPECS["mlp"])


def test_one_optimizer_steps_on_any_network() -> None:
    torch.manual_seed(0)
    first = OPTIMIZERS["unf_tied"](CHAIN)
    torch.nn.init.normal_(first.function.layers[-1].equivariant.table)
    for name in ("mlp", "resnet", "lstm", "transformer"):
        family, source = FAMILIES[name](), torch.Generator().manual_seed(0)
        optimizer, task = first.rebind(spec_of(family)), family.sample(source)
        params, batch = family.init(source, task), family.batch(source, task)
        grads, loss = grad_and_value(family.loss)(params, batch, task)
        updates, _ = optimizer(grads, optimizer.init_state(params), params, loss)
        assert {key: value.shape for key, value in updates.items()} == {
            key: p.shape for key, p in params.items()
        }
        assert all(value.isfinite().all() for value in updates.values())
        assert max(value.abs().max() for value in updates.values()) > 1e-3


def test_the_packaged_default_is_what_its_card_says() -> None:
    optimizer, metadata = pretrained.load("unf-transfer")
    head = optimizer.function.layers[-1]
    assert (head.pointwise.weight != 0).all()
    assert (head.equivariant.bias != 0).all()
    assert (head.equivariant.table == 0).all()  # held at its start
    assert not optimizer.nominal.additive
    assert sorted(metadata["tasks"]) == ["cnn", "mlp", "rnn", "transformer"]
    folder = Path(pretrained.__file__).parent / "pretrained" / "unf-transfer"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2**20

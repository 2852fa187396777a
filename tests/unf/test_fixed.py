"""Fixed axes folded or encoded, and the NFN layer: references, spans, equivariance, counts."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from learned_opt.core import tree
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec, infer_permutation_spec
from learned_opt.unf import UNF, NFNLinear, UNFLinear
from learned_opt.unf.fixed import PositionalEncoding, fold, fold_short, unfold
from learned_opt.unf.nfn import find_chain, fold_kernels
from learned_opt.unf.partitions import num_basis
from tasks.networks.cnn import CNN
from tasks.networks.mlp import MLP
from tests.cases import SPECS, spec_tensors
from tests.helpers import dense_reference as dense

WITH_FIXED = {name: spec for name, spec in SPECS.items() if spec.fixed}


def outputs_at_every_unit(layer: torch.nn.Module, inputs: dict) -> Iterator[torch.Tensor]:
    """The layer's outputs, flat, with one coefficient at one and all others at zero, for each."""
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    for weight in (p for name, p in layer.named_parameters() if "biases" not in name):
        for index in range(weight.numel()):
            weight.data.view(-1)[index] = 1
            yield torch.cat([value.detach().flatten() for value in layer(inputs).values()])
            weight.data.view(-1)[index] = 0


@pytest.mark.parametrize("name", WITH_FIXED)
def test_fold_and_back(name) -> None:
    spec = fold_short(SPECS[name])
    inputs = spec_tensors(spec, 2)
    back = unfold(spec, fold(spec, inputs))
    assert spec.folded
    assert all(torch.equal(back[key], value) for key, value in inputs.items())


@pytest.mark.parametrize("name", WITH_FIXED)
def test_folded_layer_equals_the_dense_reference(name) -> None:
    spec = fold_short(SPECS[name])
    layer = UNFLinear(spec, 2, 1).double()
    inputs = spec_tensors(spec, 2)
    for parameter in layer.biases.values():
        torch.nn.init.normal_(parameter)
    for key, expected in dense.dense_forward(layer, inputs).items():
        torch.testing.assert_close(layer(inputs)[key], expected, rtol=0, atol=1e-12)


def test_folded_indices_count_as_tensors_of_their_own() -> None:
    spec = PermutationSpec({"w": ("h", "k"), "b": ("h",)}, fixed={"k"}, fixed_sizes={"k": 3})
    apart = PermutationSpec({"w0": ("h",), "w1": ("h",), "w2": ("h",), "b": ("h",)})
    assert UNFLinear(fold_short(spec), 1, 1).num_basis == num_basis(apart)
    assert UNFLinear(spec, 1, 1).num_basis == num_basis(spec) < num_basis(apart)


@pytest.mark.parametrize("fixed_axes", ["fold", "encode"])
@pytest.mark.parametrize("name", WITH_FIXED)
def test_symmetries_are_kept_and_positions_told_apart(name, fixed_axes) -> None:
    spec = SPECS[name]
    network = UNF(spec, (2, 4, 3), fixed_axes=fixed_axes).double()
    inputs = spec_tensors(spec, 2)
    source = torch.Generator().manual_seed(1)
    out = network(inputs)

    def error(element: dict) -> float:
        moved = network(spec.apply(inputs, element))
        return max((moved[k] - v).abs().max().item() for k, v in spec.apply(out, element).items())

    assert error(spec.draw(inputs, source)) < 1e-10
    roll = {
        name: torch.arange(size).roll(int(name in spec.fixed))
        for name, size in spec.sizes(inputs).items()
    }
    assert error(roll) > 1e-2


def test_encodings_are_one_vector_for_each_index_of_a_name() -> None:
    spec = PermutationSpec({"w": ("h", "k"), "v": ("k", "k")}, fixed={"k"}, fixed_sizes={"k": 3})
    encoding = PositionalEncoding(spec, 2).double()
    table = encoding.tables[0]
    out = encoding({"w": torch.zeros(4, 3, 2).double(), "v": torch.zeros(3, 3, 2).double()})
    torch.testing.assert_close(out["w"], table.expand(4, 3, 2))
    torch.testing.assert_close(out["v"], table[:, None] + table[None])


def test_a_packed_axis_of_gates_is_folded() -> None:
    """nn.LSTM packs four gates into one axis; the view splits them and folding tells them apart."""
    lstm = torch.nn.LSTM(3, 5)
    inputs = torch.randn(4, 2, 3)
    spec = infer_permutation_spec(lstm, inputs)
    optimizer = UNFOptimizer(spec, channels=4, beta=1.0, fixed_axes="fold").double()
    params = {name: p.detach().double() for name, p in lstm.named_parameters()}
    state = optimizer.init_state(params)
    loss = torch.tensor(1.0)
    element = spec.draw(params, torch.Generator().manual_seed(0))
    updates, _ = optimizer(params, state, params, loss)
    moved = spec.apply(params, element)
    for key, value in spec.apply(updates, element).items():
        torch.testing.assert_close(
            optimizer(moved, state, moved, loss)[0][key], value, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    "network", [MLP((3,), 4, (5,)), MLP((3,), 4, (5, 4)), CNN((2, 4, 4), 3, (4, 5), (1, 1))]
)
def test_nfn_spans_what_unf_spans(network) -> None:
    params = network.init(torch.Generator().manual_seed(0))
    spec = PermutationSpec(*network.permutation_axes()).measure(params)
    inputs = {k: torch.randn(*v.shape, 1, dtype=torch.float64) for k, v in params.items()}
    kernels_folded = fold_kernels(spec, find_chain(spec))
    layers = [NFNLinear(spec, 1, 1).double(), UNFLinear(kernels_folded, 1, 1).double()]
    images = [torch.stack(list(outputs_at_every_unit(layer, inputs))) for layer in layers]
    assert len(images[0]) == len(images[1]) == layers[0].num_basis
    ranks = [int(torch.linalg.matrix_rank(image)) for image in (*images, torch.cat(images))]
    assert ranks[0] == ranks[1] == ranks[2] > 10


def test_nfn_is_equivariant_but_for_kernel_positions() -> None:
    spec = SPECS["cnn"]
    source = torch.Generator().manual_seed(0)
    network = UNF(spec, (2, 4, 3), trunk=NFNLinear, head=NFNLinear).double()
    inputs = spec_tensors(spec, 2)
    element = spec.draw(inputs, source, with_fixed=True)
    kernel = {name: torch.arange(3) for name in ("row0", "column0")}
    out = network(inputs)
    for key, value in spec.apply(out, element | kernel).items():
        torch.testing.assert_close(
            network(spec.apply(inputs, element | kernel))[key], value, rtol=0, atol=1e-10
        )
    rolled = {name: torch.arange(size) for name, size in spec.sizes(inputs).items()}
    rolled["row0"] = torch.tensor([1, 2, 0])
    expected = spec.apply(out, rolled)
    moved = network(spec.apply(inputs, rolled))
    assert max((moved[k] - v).abs().max() for k, v in expected.items()) > 1e-2


def test_nfn_takes_shared_channels() -> None:
    inputs = spec_tensors(SPECS["cnn"], 2)
    shared = torch.randn(3, dtype=torch.float64)
    layer = NFNLinear(SPECS["cnn"], 5, 2).double()
    tiled = {k: torch.cat([v, shared.expand(*v.shape[:-1], 3)], -1) for k, v in inputs.items()}
    for key, value in layer(tiled).items():
        torch.testing.assert_close(layer(inputs, shared)[key], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "bias", "count"),
    [
        (MLP((1, 8, 8), 10, (32,)), True, 3_783),  # as published
        # as published, which leaves no room for biases
        (CNN((3, 16, 16), 10, (16, 32), (2, 1)), False, 41_603),
        (CNN((3, 16, 16), 10, (16, 32), (2, 1)), True, 41_625),
    ],
)
def test_parameter_counts_of_the_nfn_optimizer(network, bias, count) -> None:
    spec = PermutationSpec(*network.permutation_axes()).measure(network.init(torch.Generator()))

    def head(*args: object) -> NFNLinear:
        return NFNLinear(*args, bias=bias)

    assert tree.num_elements(dict(UNFOptimizer(spec, head=head).named_parameters())) == count


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"b": ("h",)}, "the spec has no weight"),
        ({"w": ("h", "i"), "v": ("o", "x")}, "'v' has the axes"),
        ({"w": ("h", "i"), "v": ("h", "h")}, "'v' has the axes"),
        ({"w": ("h", "i"), "b": ("h",), "scale": ("h",)}, "'scale' has the axes"),
    ],
)
def test_nfn_refuses_what_is_no_chain(axes, message) -> None:
    with pytest.raises(ValueError, match=f"nfn needs a chain of weights .*{message}"):
        NFNLinear(PermutationSpec(axes), 1, 1)


def test_errors_of_fixed_axes() -> None:
    unmeasured = PermutationSpec({"w": ("h", "k")}, fixed={"k"})
    with pytest.raises(ValueError, match=r"lengths of the fixed axes \['k'\] are not known"):
        UNF(unmeasured, (1, 1), fixed_axes="fold")
    with pytest.raises(
        ValueError, match="fixed_axes must be one of permute, encode, fold, got 'drop'"
    ):
        UNF(unmeasured, (1, 1), fixed_axes="drop")
    with pytest.raises(ValueError, match="folded must hold fixed names whose length is known"):
        PermutationSpec({"w": ("h", "k")}, fixed={"k"}, folded={"h"})
    encoded = UNFOptimizer(SPECS["mlp"], head=UNFLinear, fixed_axes="encode")
    with pytest.raises(ValueError, match="belongs to one weight space"):
        encoded.rebind(SPECS["cnn"])
    longer = {name: size + 1 for name, size in SPECS["mlp"].fixed_sizes.items()}
    with pytest.raises(ValueError, match="belongs to one weight space"):
        encoded.rebind(replace(SPECS["mlp"], fixed_sizes=longer))

"""What is left of a layer whose equivariant coefficients are zero."""

import pytest
import torch

from learned_opt.symmetry import PermutationSpec
from learned_opt.unf.kind_bias import PointwiseKindBias
from learned_opt.unf.layers import PointwiseUNFLinear
from learned_opt.unf.reading import Summary
from learned_opt.unf.type_tied import TypeTied

SPEC = PermutationSpec({"w": ("a", "b"), "v": ("b", "c"), "bias": ("b",)})
SHAPES = {"w": (4, 3), "v": (3, 2), "bias": (3,)}


def layer_of_zeros() -> PointwiseUNFLinear:
    torch.manual_seed(0)
    layer = PointwiseUNFLinear(SPEC, 5, 2, equivariant=TypeTied)
    torch.nn.init.normal_(layer.equivariant.bias)
    return layer


def inputs() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    return {name: torch.randn(*shape, 5, generator=source) for name, shape in SHAPES.items()}


@torch.no_grad()
def test_it_is_the_layer_without_sums_of_zeros() -> None:
    layer = layer_of_zeros()
    simplified = layer.simplified()
    assert isinstance(simplified, PointwiseKindBias)
    for name, expected in layer(inputs()).items():
        torch.testing.assert_close(simplified(inputs())[name], expected, rtol=0, atol=1e-6)

    part = simplified.part(SPEC.part(["v"]))
    assert torch.equal(part(inputs())["v"], simplified(inputs())["v"])


@torch.no_grad()
def test_products_with_its_columns_are_enough() -> None:
    simplified = layer_of_zeros().simplified()
    read = {}
    for name, rows in inputs().items():
        columns = simplified.columns(name)
        assert columns is not None
        read[name] = Summary(rows @ columns, ())
    for name, expected in simplified(inputs()).items():
        assert torch.equal(simplified(read)[name], expected)


@torch.no_grad()
def test_one_coefficient_keeps_the_layer() -> None:
    layer = layer_of_zeros()
    layer.equivariant.table[0, 0, 0] = 1e-30
    assert isinstance(layer.simplified(), PointwiseUNFLinear)
    assert layer.simplified().equivariant is layer.equivariant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_numbers_take_the_type_of_the_module(dtype) -> None:
    simplified = TypeTied(SPEC, 5, 2, bias=False, init="zero").simplified().to(dtype)
    outputs = simplified({name: rows.to(dtype) for name, rows in inputs().items()})
    assert {output.dtype for output in outputs.values()} == {dtype}

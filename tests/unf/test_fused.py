"""The fused pointwise stack against the same layers one by one."""

import logging
from itertools import pairwise

import pytest
import torch
from torch.func import vmap

from learned_opt.core import native
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNF, Pointwise
from learned_opt.unf.fused import pointwise_stack
from learned_opt.unf.fused_backward import _by_layers, pointwise_stack_backward

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}  # sums of at most 32 products of order one


def layers(widths, dtype=torch.float64, chains=3):
    torch.manual_seed(0)
    pairs = list(pairwise(widths))
    weights = [torch.randn(chains, a, b, dtype=dtype) / a**0.5 for a, b in pairs]
    return weights, [torch.randn(chains, b, dtype=dtype) for _, b in pairs]


def one_by_one(tensor, weights, biases, final_relu):
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        tensor = torch.einsum("mni,mio->mno", tensor, weight) + bias[:, None]
        tensor = tensor.relu() if final_relu or layer < len(weights) - 1 else tensor
    return tensor


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("widths", [(1, 1), (8, 32, 32, 1), (5, 13, 9)])
def test_equals_the_layers_one_by_one(dtype, final_relu, widths) -> None:
    """Entries fewer and more than a block, in both memory orders."""
    weights, biases = layers(widths, dtype)
    tensors = [torch.randn(3, size, widths[0], dtype=dtype) for size in (1, 47, 48, 200)]
    tensors += [torch.randn(3, widths[0], size, dtype=dtype).mT for size in (5, 96)]
    for tensor, output in zip(
        tensors, pointwise_stack(tensors, weights, biases, final_relu), strict=True
    ):
        expected = one_by_one(tensor, weights, biases, final_relu)
        torch.testing.assert_close(
            output, expected, rtol=0, atol=TOLERANCE[dtype] * expected.abs().max().item()
        )


def test_gradients_agree_with_differences_and_the_operator_keeps_the_rules_of_torch() -> None:
    weights, biases = layers((4, 3, 2))
    tensors = [torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 1, 4, dtype=torch.float64)]
    for leaf in (*tensors, *weights, *biases):
        leaf.requires_grad_()
    for final_relu in (True, False):
        torch.library.opcheck(pointwise_stack, (tensors, weights, biases, final_relu))

        def flat(*leaves, final_relu=final_relu):
            return tuple(
                pointwise_stack(list(leaves[:2]), list(leaves[2:4]), list(leaves[4:]), final_relu)
            )

        assert torch.autograd.gradcheck(flat, (*tensors, *weights, *biases))


def test_under_vmap_a_batch_is_more_chains() -> None:
    """With batched and shared arguments side by side."""
    weights, biases = layers((4, 3, 2), chains=1)
    batch = torch.randn(7, 1, 10, 4, dtype=torch.float64)
    outputs = vmap(lambda tensor: pointwise_stack([tensor], weights, biases, True)[0])(batch)
    for tensor, output in zip(batch, outputs, strict=True):
        torch.testing.assert_close(
            output, pointwise_stack([tensor], weights, biases, True)[0], rtol=0, atol=0
        )


def test_what_is_not_finite_stays_so_and_stays_where_it_is() -> None:
    weights, biases = layers((4, 3, 2), torch.float32)
    tensor = torch.randn(3, 50, 4)
    clean = pointwise_stack([tensor.clone()], weights, biases, True)[0]
    tensor[1, 7, 2] = torch.nan
    output = pointwise_stack([tensor], weights, biases, True)[0]
    assert output[1, 7].isnan().all()
    clean[1, 7] = output[1, 7]
    assert torch.equal(output.nan_to_num(), clean.nan_to_num())


def test_a_stack_of_networks_uses_it_and_equals_its_layers() -> None:
    spec = PermutationSpec({"w": ("a", "b"), "b": ("b",), "s": ()})
    torch.manual_seed(0)
    stack = UNF(spec, (6, 5, 4, 3), trunk=Pointwise).double()
    inputs = {"w": torch.randn(7, 9, 4), "b": torch.randn(9, 4), "s": torch.randn(4)}
    inputs = {name: tensor.double() for name, tensor in inputs.items()}
    shared = torch.randn(2).double()
    assert stack.num_fused == 2
    hidden = stack.layers[0](inputs, shared)
    for layer in stack.layers[1:]:
        hidden = layer({name: tensor.relu() for name, tensor in hidden.items()})
    torch.testing.assert_close(stack(inputs, shared), hidden, rtol=0, atol=1e-12)


def test_without_a_compiler_it_says_so_once_and_gives_the_same(
    monkeypatch, caplog, tmp_path
) -> None:
    weights, biases = layers((4, 3, 2))
    tensor = torch.randn(3, 50, 4, dtype=torch.float64)
    expected = pointwise_stack([tensor], weights, biases, True)[0]
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    native._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        outputs = [pointwise_stack([tensor], weights, biases, True)[0] for _ in range(2)]
    native.load.cache_clear()
    torch.testing.assert_close(outputs, [expected] * 2, rtol=0, atol=1e-13)
    assert [record.message for record in caplog.records if "no C++ compiler" in record.message] == [
        "running without fused kernels (same results to rounding, slower): "
        "no C++ compiler was found (g++, or what CXX names)."
    ]


def test_a_source_that_does_not_compile_is_reported(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native._warn_once.cache_clear()
    source = tmp_path / "broken.cpp"
    source.write_text("int broken(")
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert native.load(source, ()) is None
    assert "broken.cpp could not be built" in caplog.text
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("widths", [(1, 1), (8, 32, 32, 1), (5, 13, 9)])
def test_its_backward_pass_equals_that_of_the_layers(dtype, final_relu, widths) -> None:
    """Also of gradients that are views, as autograd hands them on, and of chains in segments."""
    weights, biases = layers(widths, dtype)
    tensors = [torch.randn(3, size, widths[0], dtype=dtype) for size in (1, 48, 500)]
    tensors.append(torch.randn(3, widths[0], 96, dtype=dtype).mT)
    gradients = [torch.randn(3, widths[-1], each.shape[1], dtype=dtype).mT for each in tensors]

    arguments = (gradients, tensors, weights, biases, final_relu)
    expected = _by_layers(*arguments)
    for result, each in zip(pointwise_stack_backward(*arguments), expected, strict=True):
        scale = each.abs().max().item()
        torch.testing.assert_close(result, each, rtol=0, atol=TOLERANCE[dtype] * scale)
    assert expected[2].any()  # of the largest tensor; the ReLU may leave nothing of the smallest


def test_its_backward_pass_has_the_same_bits_with_any_number_of_threads() -> None:
    weights, biases = layers((8, 32, 1), torch.float32)
    tensors = [torch.randn(3, 900, 8)]
    arguments = ([torch.randn(3, 900, 1)], tensors, weights, biases, False)

    before = torch.get_num_threads()
    results = []
    for number in (1, 3):
        torch.set_num_threads(number)
        results.append(pointwise_stack_backward(*arguments))
    torch.set_num_threads(before)
    assert all(map(torch.equal, *results))

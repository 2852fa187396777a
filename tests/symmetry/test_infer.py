"""Inferred permutation specs: true symmetries, as large as stated, and their numerical proof."""

import time

import pytest
import torch
from torch import nn

from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec, check_spec, infer_permutation_spec
from tests.cases import HAND_WRITTEN, NETWORKS, others_slow
from tests.helpers.torch_modules import CASES, SEQUENCES, VECTORS

# the first trace of a process loads the decompositions, which no test shall pay for
infer_permutation_spec(nn.Linear(2, 2), torch.zeros(1, 2))


# the operations of these are those of others
LIKE_OTHERS = {"lstm_2_layers", "decoder_layer", "separate_heads", "vanilla_rnn"}
LIKE_OTHERS |= {"low_rank_prefix_tree", "soft_prototypes", "quadratic_conv", "irnn_loop"}


@pytest.mark.parametrize("name", others_slow(CASES, CASES.keys() - LIKE_OTHERS))
def test_inferred_spec_is_a_symmetry(name) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.make()
    start = time.process_time()
    spec = infer_permutation_spec(module, *case.inputs)
    seconds = time.process_time() - start  # of this process: other work does not count
    report = check_spec(module, spec, *case.inputs)
    sizes = spec.sizes(dict(module.named_parameters()))
    free = [n for n in spec.names if n not in spec.fixed and sizes[n] > 1]
    print(f"{name}: {len(spec.names)} names, {len(free)} free")
    print(f"maximal {report.maximal}, error {report.error:.0e}")
    assert report.passed, report.findings
    assert len(free) == case.num_free, (free, dict(spec.reasons))
    assert report.maximal == case.maximal, report.findings
    assert set(spec.reasons) == set(spec.fixed)
    assert seconds < 2
    assert module.training


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_inferred_spec_equals_the_hand_written_one(name) -> None:
    """The same axes share a name; names may differ, and axes of one index carry no information."""
    network = NETWORKS[name]((2, 4, 4), 3)
    by_hand = PermutationSpec(*network.permutation_axes())
    inferred = infer_permutation_spec(network, torch.randn(2, 2, 4, 4))
    sizes = by_hand.sizes(dict(network.named_parameters()))
    for parameter, names in by_hand.axes.items():
        viewed = [size for axis in inferred.views.get(parameter, ()) for size in axis]
        assert not viewed or len(viewed) > len(names)  # the MLP sees that its pixels are a grid
    free_by_hand = [n for n in by_hand.names if n not in by_hand.fixed and sizes[n] > 1]
    free_inferred = [n for n in inferred.names if n not in inferred.fixed]
    assert axes_of(inferred, free_inferred) == axes_of(by_hand, free_by_hand)


def axes_of(spec: PermutationSpec, names: list[str]) -> set[frozenset[tuple[str, int]]]:
    """The axes of parameters, as the module has them, that share each of some names."""
    shared = set()
    for name in names:
        axes = []
        for parameter, index in spec.occurrences(name):
            factors = spec.views.get(parameter, ((1,),) * len(spec.axes[parameter]))
            module_axes = [axis for axis, split in enumerate(factors) for _ in split]
            axes.append((parameter, module_axes[index]))
        shared.add(frozenset(axes))
    return shared


def test_check_names_the_wrong_axis() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    wrong = PermutationSpec(
        {"0.weight": ("h", "x"), "0.bias": ("h",), "2.weight": ("y", "z"), "2.bias": ("y",)},
        fixed={"x"},
    )
    report = check_spec(module, wrong, VECTORS)
    assert not report.passed
    assert (
        "h is no symmetry: permuting axis 0 of 0.weight, axis 0 of 0.bias changes"
        in report.findings[0]
    )
    assert any(finding.startswith("y is no symmetry") for finding in report.findings)


def test_check_says_when_a_spec_could_be_larger() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    axes = {"0.weight": ("h", "x"), "0.bias": ("h",), "2.weight": ("g", "h"), "2.bias": ("g",)}
    axes |= {"4.weight": ("y", "g"), "4.bias": ("y",)}
    assert check_spec(module, PermutationSpec(axes, {"x", "y"}), VECTORS).maximal
    report = check_spec(module, PermutationSpec(axes, {"x", "y", "g"}), VECTORS)
    assert report.passed
    assert not report.maximal
    assert (
        "g is fixed, but permuting axis 0 of 2.weight, axis 0 of 2.bias, axis 1 of 4.weight"
        in report.findings[0]
    )


def test_check_says_when_a_name_is_two() -> None:
    """Both hidden layers share a name: no single axis can leave it, but each layer can."""
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    axes = {"0.weight": ("h", "x"), "0.bias": ("h",), "2.weight": ("h", "h"), "2.bias": ("h",)}
    axes |= {"4.weight": ("y", "h"), "4.bias": ("y",)}
    report = check_spec(module, PermutationSpec(axes, {"x", "y"}), VECTORS)
    assert report.passed
    assert not report.maximal
    first, second = report.findings
    assert first == (
        "axis 0 of 0.weight, axis 0 of 0.bias, axis 1 of 2.weight can be permuted apart from "
        "what shares their name"
    )
    assert second.startswith(
        "axis 0 of 2.weight, axis 0 of 2.bias, axis 1 of 4.weight can be permuted apart"
    )


def test_an_operation_without_a_rule_fixes_what_it_touches() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(4, 6)
            self.out = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.fft.fft(self.read(x)).real)

    spec = infer_permutation_spec(Odd(), VECTORS)
    assert set(spec.names) == set(spec.fixed)
    assert any("is not understood" in reason for reason in spec.reasons.values())


def test_views_are_undone_exactly() -> None:
    module = CASES["lstm"].make()
    spec = infer_permutation_spec(module, SEQUENCES)
    params = {name: p.detach() for name, p in module.named_parameters()}
    viewed = spec.view(params)
    assert viewed["cell.weight_ih_l0"].shape == (4, 6, 4)
    assert spec.axes["cell.weight_hh_l0"][1] == spec.axes["cell.weight_hh_l0"][2]
    assert all(torch.equal(value, params[name]) for name, value in spec.unview(viewed).items())
    assert PermutationSpec(**spec.as_dict()) == spec
    with pytest.raises(
        ValueError,
        match=r"splits 'cell.weight_ih_l0' into the factors .* but its shape is \(8, 4\)",
    ):
        spec.view(params | {"cell.weight_ih_l0": torch.zeros(8, 4)})


@pytest.mark.parametrize("name", ["lstm", "packed_attention", "conv_bn_flatten", "grouped_conv"])
def test_one_step_commutes_with_permutation_on_views(name) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.make()
    spec = infer_permutation_spec(module, *case.inputs)
    params = {n: torch.randn(p.shape, dtype=torch.float64) for n, p in module.named_parameters()}
    grads = {n: torch.randn_like(p) for n, p in params.items()}
    optimizer = UNFOptimizer(spec, channels=4, beta=0.1).double()
    state = optimizer.init_state(params)
    loss = torch.tensor(1.0)
    element = spec.draw(params, torch.Generator().manual_seed(1), with_fixed=True)
    updates, _ = optimizer(grads, state, params, loss)
    moved, _ = optimizer(spec.apply(grads, element), state, spec.apply(params, element), loss)
    for key, value in spec.apply(updates, element).items():
        torch.testing.assert_close(moved[key], value, rtol=0, atol=1e-10)


class MakesTensors(nn.Module):
    """Starts a recurrence from zeros that it makes itself, as many forwards do.

    Args:
        dtype: the type that the forward names, if any.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.read = nn.Linear(4, 9)
        self.keep = nn.Linear(9, 9)
        self.out = nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(x.shape[0], 9, dtype=self.dtype)
        for _ in range(2):
            hidden = torch.tanh(self.read(x) + self.keep(hidden))
        return self.out(hidden)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_a_forward_may_make_tensors_of_its_own(dtype) -> None:
    module = MakesTensors(dtype)
    spec = infer_permutation_spec(module, VECTORS)
    report = check_spec(module, spec, VECTORS)
    assert report.passed, report.findings
    assert report.maximal, report.findings
    assert set(spec.names) - set(spec.fixed) == {"read.weight[0]"}
    assert torch.get_default_dtype() == torch.float32
    wrong = PermutationSpec(spec.axes, set(spec.fixed) - {"out.weight[0]"})
    assert not check_spec(module, wrong, VECTORS).passed


def test_inputs_that_do_not_fit_are_named() -> None:
    words = r"fails on the example inputs float32 \(.+\): .*cannot be multiplied"
    with pytest.raises(ValueError, match=words):
        infer_permutation_spec(nn.Linear(3, 2), VECTORS)

"""Permutation specs: sizes, group elements, and the specs that networks bring themselves."""

import pickle

import pytest
import torch
from torch.func import functional_call

from learned_opt.symmetry import PermutationSpec
from tests.cases import HAND_WRITTEN, NETWORKS

SPEC = PermutationSpec({"w": ("h", "h", "o"), "b": ("o",)}, fixed={"o"})
PARAMS = {"w": torch.arange(27.0).reshape(3, 3, 3), "b": torch.arange(3.0)}


def test_names_sizes_and_hash() -> None:
    assert SPEC.names == ("h", "o")
    assert SPEC.occurrences("h") == [("w", 0), ("w", 1)]
    assert SPEC.sizes({"w": torch.zeros(4, 4, 2, 7), "b": torch.zeros(2, 7)}) == {"h": 4, "o": 2}
    assert hash(pickle.loads(pickle.dumps(SPEC))) == hash(SPEC)
    assert PermutationSpec(**SPEC.as_dict()) == SPEC


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"w": torch.zeros(4, 5, 2), "b": torch.zeros(2)},
            "axis 1 of 'w' is named 'h' and has size 5, but axis 0",
        ),
        (
            {"w": torch.zeros(4, 4, 2), "b": torch.zeros(3)},
            "axis 0 of 'b' is named 'o' and has size 3",
        ),
        ({"w": torch.zeros(4, 4)}, "missing: b"),
        ({"w": torch.zeros(4, 4), "b": torch.zeros(2)}, r"gives 'w' the axes \('h', 'h', 'o'\)"),
    ],
)
def test_misfits_are_named(params, message) -> None:
    with pytest.raises(ValueError, match=message):
        SPEC.sizes(params)


def test_fixed_must_name_axes() -> None:
    with pytest.raises(ValueError, match=r"fixed must hold names of axes, got \['q'\]"):
        PermutationSpec({"b": ("h",)}, fixed={"q"})


def test_permute_moves_axes_together_and_leaves_fixed_names() -> None:
    moved = SPEC.permute(PARAMS, torch.Generator().manual_seed(3))
    order = SPEC.draw(PARAMS, torch.Generator().manual_seed(3))["h"]
    assert order.tolist() != [0, 1, 2]
    assert torch.equal(moved["w"], PARAMS["w"][order][:, order])
    assert torch.equal(moved["b"], PARAMS["b"])


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_network_specs_are_symmetries(name) -> None:
    network = NETWORKS[name]((2, 4, 4), 3).double()
    spec = PermutationSpec(*network.permutation_axes())
    source = torch.Generator().manual_seed(0)
    params = {
        k: torch.randn(v.shape, generator=source, dtype=torch.float64)
        for k, v in network.named_parameters()
    }
    inputs = torch.randn(6, 2, 4, 4, generator=source, dtype=torch.float64)
    outputs = functional_call(network, params, (inputs,))
    moved = spec.permute(params, source)
    assert any(not torch.equal(moved[k], params[k]) for k in params)
    torch.testing.assert_close(
        functional_call(network, moved, (inputs,)), outputs, rtol=0, atol=1e-12
    )

    broken = dict(params)  # permuting one side of one hidden axis alone changes the function
    first = next(iter(params))
    broken[first] = params[first].roll(1, 0)
    assert (functional_call(network, broken, (inputs,)) - outputs).abs().max() > 1e-2

"""The layers as optimizers and files name them: one theta on any network, old spellings, errors."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.func import grad_and_value

from learned_opt.deploy import construct, pretrained
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import PointwiseUNFLinear, TypeTied, UNFLinear
from tests.cases import FAMILIES, OPTIMIZERS, SPECS, spec_of

CHAIN = PermutationSpec(
    {"a": ("h", "p"), "b": ("q", "h"), "c": ("r", "q"), "c_bias": ("r",)}, fixed={"p"}
)


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
        family = FAMILIES[name]()
        optimizer = first.rebind(spec_of(family))
        source = torch.Generator().manual_seed(0)
        task = family.sample(source)
        params = family.init(source, task)
        batch = family.batch(source, task)
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

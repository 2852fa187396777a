"""Which parameters a learned optimizer trains: filtered, grouped, added later, without names."""

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer, infer_permutation_spec
from learned_opt.deploy import pretrained
from tests.cases import OPTIMIZERS
from tests.deploy.test_learned_optimizer import DATA, equal, equivariant, model, train


def packaged(network: nn.Module, **options) -> LearnedOptimizer:
    return LearnedOptimizer.from_pretrained("unf-transfer", network, DATA, **options)


def values(network: nn.Module) -> list[torch.Tensor]:
    return [param.detach() for param in network.parameters()]


def test_the_packaged_optimizer_treats_each_tensor_by_itself() -> None:
    """What is frozen, absent or in another group changes nothing for the others, bit for bit."""
    whole = model()
    train(whole, packaged(whole))

    frozen = model()
    frozen[0].requires_grad_(False)
    optimizer = packaged(frozen)
    train(frozen, optimizer)
    assert list(optimizer.state) == list(frozen[2].parameters())

    chosen = model()
    chosen[0].requires_grad_(False)
    trained = [param for param in chosen.parameters() if param.requires_grad]
    optimizer = packaged(chosen, params=trained)
    train(chosen, optimizer)
    assert optimizer.param_groups[0]["param_names"] == ["2.weight", "2.bias"]
    assert equal(values(chosen), values(frozen))

    # the first step of a tensor knows nothing of the others
    one = model()
    other = model()
    train(one, packaged(one), 1)
    train(other, packaged(other, params=list(other[2].parameters())), 1)
    assert equal(values(one[2]), values(other[2]))


def test_a_simplified_theta_makes_the_same_steps_bit_for_bit() -> None:
    network = model()
    theta, _ = pretrained.load("unf-transfer")
    theta = theta.rebind(infer_permutation_spec(network, DATA))
    params = {name: param.detach() for name, param in network.named_parameters()}
    grads = {name: torch.randn_like(param) for name, param in params.items()}

    results = []
    with torch.no_grad():
        for optimizer in (theta, theta.simplified()):
            state = optimizer.init_state(params)
            results.append(optimizer(grads, state, params, torch.tensor(0.0))[0])
    assert not theta.separable
    assert theta.simplified().separable
    for name in params:
        assert torch.equal(results[0][name], results[1][name])

    with torch.no_grad():
        theta.function.layers[-1].equivariant.table[3] = 0.1
    assert not theta.simplified().separable


def test_layers_thawed_later_join_under_their_names() -> None:
    network = model()
    optimizer = packaged(network, params=[{"params": network[2].parameters(), "lr": 0.5}])
    train(network, optimizer, 2)
    late = nn.Parameter(torch.zeros(3, 3))
    optimizer.add_param_group({"params": network[0].parameters(), "lr": 0.1})
    optimizer.add_param_group({"params": [late]})  # of no model that it knows
    train(network, optimizer, 1)
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["2.weight", "2.bias"],
        ["0.weight", "0.bias"],
        ["4"],
    ]
    assert [int(optimizer.state[param]["step"]) for param in network.parameters()] == [1, 1, 3, 3]


def test_a_theta_that_reads_all_trains_what_is_chosen() -> None:
    """The symmetries between chosen tensors stay; a theta of all of them is refused."""
    network = model()
    theta = equivariant(network)
    with pytest.raises(ValueError, match=r"missing: 0\.weight, 0\.bias"):
        LearnedOptimizer(network[2].parameters(), theta, module=network)
    part = OPTIMIZERS["unf"](theta.spec.part(["2.weight", "2.bias"]))
    optimizer = LearnedOptimizer(network[2].parameters(), part, module=network)
    before = values(model())
    after = train(network, optimizer)
    assert equal(before[:2], after[:2])
    assert not equal(before[2:], after[2:])


class LowRank(nn.Module):
    """A layer that is frozen, with a trained product of two thin matrices beside it."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / 3)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T


def test_low_rank_adapters_cost_what_their_matrices_cost() -> None:
    network = model()
    network[0] = LowRank(network[0])
    network[2] = LowRank(network[2])
    optimizer = packaged(network)
    first = (network(DATA) - 1).square().mean()
    for _ in range(10):
        optimizer.zero_grad()
        loss = (network(DATA) - 1).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < first
    assert {tuple(param.shape) for param in optimizer.state} == {(2, 5), (4, 2), (2, 4), (3, 2)}


def test_rules_are_shown_and_chosen_by_name_or_group() -> None:
    network = model()
    groups = [
        {"params": network[0].parameters(), "lr": 0.5},
        {"params": [network[2].weight], "rule": "adam"},
    ]
    optimizer = packaged(network, params=groups, rules={"0.weight": "orthogonal"})
    shown = str(optimizer)
    assert "    orthogonal: 0.weight\n" in shown
    assert "    adam: 0.bias, 2.weight" in shown
    backward = network(DATA).square().mean()
    backward.backward()
    optimizer.step()
    assert "second" in optimizer.state[network[2].weight]
    assert "second" not in optimizer.state[network[0].weight]

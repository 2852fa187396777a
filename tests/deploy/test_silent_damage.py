"""What a learned optimizer must never do to a model without a word."""

import copy
import logging
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from learned_opt import LearnedOptimizer, infer_permutation_spec
from tests.deploy.test_learned_optimizer import deep_set

INPUTS = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Two layers of equal shape, registered in the order of ``names``."""

    def __init__(self, names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule("b")(self.get_submodule("a")(x).relu())


def train(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        (network(INPUTS) - 1).square().mean().backward()
        optimizer.step()


def everything_of(module: nn.Module) -> dict[str, object]:
    """Modes, flags, buffers and weights of a module, and the random state."""
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    return {
        "modes": [part.training for part in module.modules()],
        "flags": [parameter.requires_grad for parameter in module.parameters()],
        "tensors": tensors,
        "random": torch.get_rng_state(),
    }


class Noisy(nn.Module):
    """Draws numbers, which change nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.rand(())


def test_construction_leaves_the_model_and_the_random_state_as_they_are() -> None:
    network = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), Noisy(), nn.Dropout(), nn.Linear(4, 2)
    )
    network.train()
    network[1].eval()  # frozen
    network[0].bias.requires_grad_(False)
    before = everything_of(network)

    infer_permutation_spec(network, INPUTS)
    LearnedOptimizer.from_pretrained("unf-transfer", network, (INPUTS,))
    after = everything_of(network)
    assert after["modes"] == before["modes"] == [True, True, False, True, True, True]
    assert after["flags"] == before["flags"]
    assert torch.equal(after["random"], before["random"])
    for name, value in before["tensors"].items():
        assert torch.equal(after["tensors"][name], value), name


@pytest.mark.parametrize("kind", ["deep_set", "unf"])
def test_a_state_finds_its_parameters_in_another_order(kind: str) -> None:
    first = Branches("ab")
    second = Branches("ba")
    second.load_state_dict(first.state_dict())

    if kind == "unf":
        theta = LearnedOptimizer.from_pretrained("unf-transfer", first, (INPUTS,)).meta_optimizer
    else:
        theta = deep_set()

    optimizer = LearnedOptimizer(first, theta)
    train(first, optimizer, 3)
    second.load_state_dict(first.state_dict())
    other = LearnedOptimizer(second, theta)
    other.load_state_dict(optimizer.state_dict())
    train(first, optimizer, 3)
    train(second, other, 3)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    assert other.param_groups[0]["param_names"][0].startswith("b")


def test_a_state_of_renamed_parameters_is_refused_by_their_names() -> None:
    first = nn.Sequential(nn.Linear(3, 3))
    optimizer = LearnedOptimizer(first, deep_set())
    train(first, optimizer, 1)
    renamed = LearnedOptimizer(nn.Sequential(OrderedDict(head=nn.Linear(3, 3))), deep_set())
    with pytest.raises(
        ValueError,
        match=r"group 0: missing: 0\.weight, 0\.bias; unexpected: head\.weight, head\.bias",
    ):
        renamed.load_state_dict(optimizer.state_dict())
    assert not renamed.state


def test_a_state_that_other_rules_have_written_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    def optimizer_of(rules: dict[str, str]) -> LearnedOptimizer:
        return LearnedOptimizer.from_pretrained("unf-transfer", network, (INPUTS,), rules=rules)

    optimizer = optimizer_of({"2.weight": "adam"})
    train(network, optimizer, 1)
    saved = optimizer.state_dict()
    other = optimizer_of({"2.weight": "orthogonal"})
    with pytest.raises(ValueError, match=r"2\.weight adam there and orthogonal here; give the"):
        other.load_state_dict(saved)
    assert not other.state

    same = optimizer_of({"2.weight": "adam"})
    same.load_state_dict(saved)
    assert "param_rules" not in same.param_groups[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["deep_set", "fused", "unf-transfer"])
def test_one_bad_gradient_costs_one_step(
    name: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    if name == "unf-transfer":
        optimizer = LearnedOptimizer.from_pretrained(name, network, (INPUTS,))
    else:
        optimizer = LearnedOptimizer(network, deep_set(), fused=name == "fused")
    train(network, optimizer, 2)
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()))

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            optimizer.zero_grad()
            network(INPUTS).sum().backward()
            network[2].weight.grad[1, 2] = value
            optimizer.step()
    assert optimizer.skipped == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the gradient of parameter 2.weight is not finite: this step is skipped, and so are others "
        "like it."
    ]
    for earlier, later in zip(before, (network.state_dict(), optimizer.state_dict()), strict=True):
        leaves = zip(tree_leaves(earlier), tree_leaves(later), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in leaves)
    train(network, optimizer, 2)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_a_bad_gradient_may_be_an_error() -> None:
    network = nn.Linear(3, 2)
    optimizer = LearnedOptimizer(network, deep_set(), nonfinite="raise")
    before = network.weight.detach().clone()
    (network(INPUTS).sum() * float("inf")).backward()
    with pytest.raises(ValueError, match="is not finite; nothing was changed"):
        optimizer.step()
    assert torch.equal(network.weight, before)
    assert not optimizer.state
    with pytest.raises(ValueError, match="nonfinite must be one of skip, raise, got 'ignore'"):
        LearnedOptimizer(network, deep_set(), nonfinite="ignore")


def test_what_is_refused_leaves_nothing_behind() -> None:
    network = nn.Linear(3, 2)
    optimizer = LearnedOptimizer(network, deep_set())
    number = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    with pytest.raises(ValueError, match=r"late must be one of .*, got torch\.int64"):
        optimizer.add_param_group({"params": [("late", number)]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [("empty", nn.Parameter(torch.zeros(0, 2)))]})
    train(network, optimizer, 1)


def test_a_model_that_was_cast_goes_on_in_float32() -> None:
    network = nn.Linear(3, 2)
    optimizer = LearnedOptimizer(network, deep_set())
    train(network, optimizer, 1)
    network.bfloat16()
    network(INPUTS.bfloat16()).sum().backward()
    optimizer.step()
    state = optimizer.state[network.weight]
    assert {state[key].dtype for key in ("momentum", "master")} == {torch.float32}


def deep_network() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(24)])


def test_the_state_grows_with_the_parameters_and_not_with_their_square() -> None:
    """A vector's second moment lies with that vector alone."""
    network = deep_network()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, (INPUTS,))
    train(network, optimizer, 1)

    entries = [len(optimizer.state[parameter]) for parameter in network.parameters()]
    assert max(entries) <= 4  # step, momentum, momenta, second
    shapes = set()
    for parameter in network.parameters():
        second = optimizer.state[parameter].get("second")
        shapes.add((parameter.ndim, None if second is None else tuple(second.shape)))
    assert shapes == {(2, None), (1, (3,))}


def test_a_state_as_version_0_2_laid_it_out_goes_on() -> None:
    network = deep_network()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, (INPUTS,))
    train(network, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    twin = copy.deepcopy(network)

    names = optimizer.param_groups[0]["param_names"]
    second = {}
    for number, name in enumerate(names):
        if "second" in state["state"][number]:
            second[f"second/{name}"] = state["state"][number].pop("second")
    for part in state["state"].values():
        part.update(second)

    resumed = LearnedOptimizer.from_pretrained("unf-transfer", twin, (INPUTS,))
    resumed.load_state_dict(state)
    train(network, optimizer, 2)
    train(twin, resumed, 2)
    for expected, actual in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(expected, actual)

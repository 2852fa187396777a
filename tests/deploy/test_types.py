"""Parameters of 16 bits, of 64, and of several types."""

import copy

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.sgd import SGD
from tests.deploy.test_learned_optimizer import DATA, SPEC, deep_set, model

HALF = [torch.bfloat16, torch.float16]


def fit(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> float:
    """Mean square error in float32."""
    targets = torch.sin(3 * DATA[:, :3])
    for _ in range(num_steps):
        optimizer.zero_grad()
        hidden = DATA
        for layer in network:
            param = next(layer.parameters(), hidden)
            hidden = layer(hidden.to(param.dtype))
        loss = (hidden.float() - targets).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("dtype", HALF)
def test_a_thousand_small_updates_are_not_lost(dtype: torch.dtype) -> None:
    """1e-4 of a weight is a fortieth of what bfloat16 can tell apart."""
    weights = nn.Parameter(torch.linspace(0.5, 2, 64).to(dtype))
    start = weights.detach().float()
    sgd = HandDesigned(SPEC, SGD, lr=1.0)
    optimizer = LearnedOptimizer([weights], sgd, lr=1.0)
    for _ in range(1000):
        weights.grad = (-1e-4 * start).to(dtype)
        optimizer.step()
    steps = (weights.detach().float() - start) / start
    assert steps.mean().item() == pytest.approx(0.1, rel=0.02)
    assert optimizer.state[weights]["master"].dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF)
def test_sixteen_bits_train_as_thirty_two(dtype: torch.dtype) -> None:
    losses = []
    for kind in (torch.float32, dtype):
        network = model().to(kind)
        optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
        losses.append(fit(network, optimizer, 60))
        states = [value for state in optimizer.state.values() for value in state.values()]
        assert {value.dtype for value in states} <= {torch.float32, torch.int64}
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_a_model_of_several_types_trains() -> None:
    network = model()
    network[0].bfloat16()
    network[2].double()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
    start = fit(network, optimizer, 1)
    assert fit(network, optimizer, 30) < 0.8 * start
    assert optimizer.state[network[2].weight]["momentum"].dtype == torch.float64
    assert optimizer.state[network[0].weight]["momentum"].dtype == torch.float32


def test_the_copy_is_saved_and_follows_who_else_writes() -> None:
    network = model().bfloat16()
    optimizer = LearnedOptimizer(network, deep_set())
    fit(network, optimizer, 3)
    twin = copy.deepcopy(network)
    resumed = LearnedOptimizer(twin, deep_set())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fit(network, optimizer, 3)
    fit(twin, resumed, 3)
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimizer.state[a]["master"], resumed.state[b]["master"])

    with torch.no_grad():
        network[0].weight.fill_(3.0)
    fit(network, optimizer, 1)
    assert (optimizer.state[network[0].weight]["master"] - 3).abs().max() < 0.5


def test_the_kernel_moves_the_copy() -> None:
    sides = []
    for fused in (False, True):
        network = model().bfloat16()
        optimizer = LearnedOptimizer(network, deep_set(), fused=fused)
        fit(network, optimizer, 3)
        sides.append([optimizer.state[param]["master"] for param in network.parameters()])
    for a, b in zip(*sides, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

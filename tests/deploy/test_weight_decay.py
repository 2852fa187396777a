"""Weight decay of LearnedOptimizer means what it means in torch.optim.AdamW."""

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.optimizers.hand.references import make_adam
from tests.deploy.test_learned_optimizer import DATA, SPEC, deep_set, model, train


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_it_is_that_of_adamw_where_steps_have_the_size_of_a_learning_rate(rate: float) -> None:
    """The first step of Adam moves every weight by its learning rate."""
    left = model()
    right = model()
    ours = LearnedOptimizer(left, make_adam(SPEC, lr=0.01), lr=rate, weight_decay=0.3)
    theirs = torch.optim.AdamW(right.parameters(), lr=0.01 * rate, weight_decay=0.3)
    for a, b in zip(train(left, ours, 1), train(right, theirs, 1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_habit_of_adamw_does_no_harm() -> None:
    """0.01 takes away next to nothing in a short training, with the packaged optimizer too."""
    losses = {}
    for decay in (0.0, 0.01, 0.1):
        network = model()
        optimizer = LearnedOptimizer.from_pretrained(
            "unf-transfer", network, (DATA,), weight_decay=decay
        )
        targets = torch.sin(3 * DATA[:, :3])
        for _ in range(60):
            optimizer.zero_grad()
            loss = (network(DATA) - targets).square().mean()
            loss.backward()
            optimizer.step()
        losses[decay] = loss.item()
    assert losses[0.01] == pytest.approx(losses[0.0], rel=0.05)
    assert losses[0.1] == pytest.approx(losses[0.0], rel=0.3)


def test_weights_without_a_gradient_do_not_decay() -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    optimizer = LearnedOptimizer(network, deep_set(), weight_decay=0.1)
    network.bias.sum().backward()
    optimizer.step()
    assert torch.equal(network.weight, before)

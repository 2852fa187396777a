"""A deployed optimizer whose steps fall to zero at the end of a training of known length."""

import torch
from torch import Tensor, nn

from learned_opt.deploy.optimizer import LearnedOptimizer

WORDS = torch.arange(24).reshape(8, 3) % 7


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> list[float]:
    """How far each step moves the weights."""
    lengths = []
    for _ in range(number):
        before = flat(model)
        optimizer.zero_grad()
        model(WORDS).square().mean().backward()
        optimizer.step()
        lengths.append((flat(model) - before).norm().item())
    return lengths


def flat(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_steps_end_with_the_training_and_go_on_without_an_end() -> None:
    known = network()
    optimizer = LearnedOptimizer.from_pretrained("unf-adaptive", known, WORDS, num_steps=4)
    lengths = steps(known, optimizer, 6)
    assert min(lengths[:4]) > 0
    assert lengths[4:] == [0.0, 0.0]

    unknown = network()
    optimizer = LearnedOptimizer.from_pretrained("unf-adaptive", unknown, WORDS)
    assert min(steps(unknown, optimizer, 6)) > 0


def test_a_stopped_training_goes_on_bit_for_bit() -> None:
    whole = network()
    steps(whole, LearnedOptimizer.from_pretrained("unf-adaptive", whole, WORDS, num_steps=6), 6)

    first = network()
    stopped = LearnedOptimizer.from_pretrained("unf-adaptive", first, WORDS, num_steps=6)
    steps(first, stopped, 3)
    second = network()
    second.load_state_dict(first.state_dict())
    resumed = LearnedOptimizer.from_pretrained("unf-adaptive", second, WORDS, num_steps=6)
    resumed.load_state_dict(stopped.state_dict())
    steps(second, resumed, 3)
    assert torch.equal(flat(second), flat(whole))


def test_words_take_adams_direction_with_a_trace_and_without() -> None:
    for inputs in (WORDS, None):
        model = network()
        optimizer = LearnedOptimizer.from_pretrained("unf-adaptive", model, inputs)
        assert "adam: 0.weight, 2.bias" in repr(optimizer)
        assert "orthogonal: 2.weight" in repr(optimizer)

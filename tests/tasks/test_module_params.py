"""Initial weights of any module: keyed, apart from global generators, the module left as it is."""

import logging
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from learned_opt.core.rng import generator
from tasks.module_params import InitialParams


class Scaled(nn.Module):
    """A layer and a parameter without a reset, as many modules have one."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(3))
        self.linear = nn.Linear(12, 10)
        nn.init.normal_(self.linear.weight, std=scale)

    def forward(self, x):
        return self.linear(x).mean() + self.position.sum()


MODULES = {
    "constructor": partial(nn.LSTM, 3, 4),
    "module": nn.LSTM(3, 4),
    "attention": nn.TransformerEncoderLayer(4, 2, 6),
    "without a reset of its own": Scaled,
}


@pytest.mark.parametrize("name", MODULES)
def test_equal_keys_equal_bits(name) -> None:
    initial = InitialParams(MODULES[name])
    first = initial.draw(generator(0, "init"))
    again = initial.draw(generator(0, "init"))
    other = initial.draw(generator(1, "init"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if not torch.equal(first[key], other[key])]
    assert drawn
    if isinstance(MODULES[name], nn.LSTM) or name == "constructor":
        assert drawn == list(first)


def test_global_generators_are_left_as_they_are() -> None:
    class Noisy(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            with torch.no_grad():
                self.weight.fill_(float(np.random.rand()) + random.random())

    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    initial = InitialParams(Noisy)
    first = initial.draw(generator(0))
    again = initial.draw(generator(0))

    assert torch.equal(first["weight"], again["weight"])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_a_module_is_never_changed() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    initial = InitialParams(module)
    drawn = initial.draw(generator(0))
    assert not module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not torch.equal(drawn["0.weight"], state["0.weight"])


def test_what_no_layer_resets_is_named_once(caplog) -> None:
    caplog.set_level(logging.WARNING)
    module = Scaled(0.01)
    drawn = InitialParams(module).draw(generator(0))
    assert torch.equal(drawn["position"], module.position)
    assert "no layer resets position, which every chain starts with" in caplog.text
    assert "draws linear.weight from another distribution" in caplog.text


def test_a_constructor_is_taken_at_its_word(caplog) -> None:
    caplog.set_level(logging.WARNING)
    drawn = InitialParams(partial(Scaled, 0.01)).draw(generator(0))
    assert 0.005 < drawn["linear.weight"].std() < 0.02
    assert caplog.text == ""


def test_frozen_parameters_are_constants() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    assert list(InitialParams(module).draw(generator(0))) == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear, "module Linear must be constructed without arguments .* functools.partial"),
        (3, "module must be an nn.Module or a constructor of one, got 3"),
        (dict, "module dict must return an nn.Module, got dict"),
        (nn.ReLU, "module ReLU has no parameter with requires_grad"),
        (partial(nn.LazyLinear, 3), "has no size yet; give its layer all sizes"),
        (partial(nn.Linear, 2, 2, dtype=torch.complex64), "must be real, got torch.complex64"),
        (partial(nn.Linear, 2, 2, device="meta"), "module must be on the cpu"),
        (partial(nn.Sequential, nn.Linear(2, 2)), "'0.weight' is the same parameter again"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(module, message) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        InitialParams(module)
    assert "\n" not in str(refusal.value)

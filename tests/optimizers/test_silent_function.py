"""An optimizer whose learned function is zero everywhere runs without it, bit for bit."""

from functools import partial

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.core.tree import Tree, leaves
from learned_opt.optimizers.adaptive_scale import AdaptiveScale
from learned_opt.optimizers.nominal import Momentum, Relative
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf.layers import Pointwise, UNFLinear

SPEC = PermutationSpec({"w": ("a", "b"), "v": ("b", "c"), "bias": ("b",)})
ADAPTIVE = partial(AdaptiveScale, nominal=partial(Relative, orthogonal=True, row_limit=2.0))
NOMINALS = {"momentum": Momentum, "relative": Relative, "adaptive": ADAPTIVE}


def optimizer_of(nominal: str, head: type[nn.Module], beta: float = 0.3) -> UNFOptimizer:
    torch.manual_seed(0)
    return UNFOptimizer(SPEC, head=head, channels=6, beta=beta, nominal=NOMINALS[nominal])


def silenced(optimizer: UNFOptimizer) -> UNFOptimizer:
    """The last layer at zero."""
    with torch.no_grad():
        for param in optimizer.function.layers[-1].parameters():
            param.zero_()
    return optimizer


def run(optimizer: UNFOptimizer, steps: int = 4) -> tuple[Tree, Tree]:
    source = torch.Generator().manual_seed(1)
    params = {"w": torch.randn(4, 3, generator=source), "v": torch.randn(3, 2, generator=source)}
    params["bias"] = torch.randn(3, generator=source)
    state = optimizer.init_state(params)
    for _ in range(steps):
        grads = {name: torch.sin(7 * param) for name, param in params.items()}
        updates, state = optimizer(grads, state, params, torch.tensor(1.0))
        params = {name: param + updates[name] for name, param in params.items()}
    return params, state


@pytest.mark.parametrize("head", [Pointwise, UNFLinear])
@pytest.mark.parametrize("nominal", NOMINALS)
@torch.no_grad()
def test_it_takes_the_same_steps_and_remembers_less(nominal, head) -> None:
    whole = silenced(optimizer_of(nominal, head))
    alone = whole.simplified()
    assert alone.separable
    assert whole.function.is_silent

    expected, state = run(whole)
    params, smaller = run(alone)
    for name, param in params.items():
        assert torch.equal(param, expected[name])
    assert "momenta" in state
    assert "momenta" not in smaller
    assert [*smaller] == [key for key in state if key != "momenta"]


@torch.no_grad()
def test_a_function_of_no_weight_is_left_out() -> None:
    params, _ = run(optimizer_of("momentum", Pointwise, beta=0.0).simplified())
    expected, _ = run(optimizer_of("momentum", Pointwise, beta=0.0))
    for name, param in params.items():
        assert torch.equal(param, expected[name])


def test_one_number_is_enough_to_keep_it() -> None:
    optimizer = silenced(optimizer_of("momentum", UNFLinear))
    last = list(optimizer.function.layers[-1].parameters())[-1]
    with torch.no_grad():
        last.flatten()[-1] = 1e-30
    assert not optimizer.simplified().is_silent


def test_the_packaged_one_remembers_eight_bytes_a_weight() -> None:
    network = nn.Sequential(nn.Linear(50, 40, bias=False), nn.Linear(40, 30, bias=False))
    optimizer = LearnedOptimizer.from_pretrained("unf-adaptive", network)
    network(torch.ones(2, 50)).square().mean().backward()
    optimizer.step()
    for param, state in optimizer.state.items():
        size = sum(leaf.numel() * leaf.element_size() for leaf in leaves(dict(state)))
        assert size / param.numel() == pytest.approx(8, abs=0.05)

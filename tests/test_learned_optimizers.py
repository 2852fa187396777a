"""Learned optimizers against slow references written out for one weight at a time."""

from math import exp, sqrt, tanh

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from learned_opt import tree
from learned_opt.cli import config_dir
from learned_opt.optimizers.mlp import MLPOptimizer
from tests.cases import SPECS
from tests.test_optimizers import tensors

TAUS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
LOSS = torch.tensor(1.0)


def published(name: str) -> torch.nn.Module:
    """The optimizer of a YAML, in float64."""
    torch.manual_seed(0)
    return instantiate(OmegaConf.load(f"{config_dir()}/meta_optimizer/{name}.yaml"))(SPECS["mlp"]).double()


def dense(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The layers one after the other, with ReLU between them."""
    layers = list(network.layers)
    for layer in layers[:-1]:
        inputs = (inputs @ layer.weight + layer.bias).relu()
    return inputs @ layers[-1].weight + layers[-1].bias


def steps(optimizer: torch.nn.Module, count: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Parameters before, gradients and updates of each of the steps."""
    params, trace = tensors(0), ([], [], [])
    state = optimizer.init_state(params)
    for seed in range(1, count + 1):
        grads = tensors(seed)
        updates, state = optimizer(grads, state, params, LOSS)
        for column, value in zip(trace, (params, grads, updates), strict=True):
            column.append(value)
        params = tree.add(params, updates)
    return trace


def unit(values: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    return values / sqrt(epsilon + (values**2).mean().item())


@torch.no_grad()
def test_mlp_is_the_published_function_of_19_features() -> None:
    optimizer = published("mlp")
    params, grads, updates = steps(optimizer, 3)
    for name, param in params[2].items():
        columns = [unit(grads[2][name]), unit(param)]
        for decay in (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
            momentum = sum((1 - decay) * decay ** (2 - t) * grads[t][name] for t in range(3))
            columns.append(unit(momentum))
        for index in torch.cartesian_prod(*map(torch.arange, param.shape)).reshape(param.numel(), -1).tolist():
            time = [tanh(2 / tau - 1) for tau in TAUS]
            own = torch.tensor([column[tuple(index)].item() for column in columns] + time, dtype=torch.float64)
            direction, magnitude = dense(optimizer.function, own).tolist()
            expected = -1e-3 * direction * exp(1e-3 * magnitude)
            assert updates[2][name][tuple(index)].item() == pytest.approx(expected, rel=1e-7)


def test_published_sizes() -> None:
    assert tree.num_elements(dict(published("mlp").named_parameters())) == 1_762


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layers": 0}, "hidden_layers must be at least 1, got 0"),
        ({"hidden_size": -3}, "hidden_size must be at least 1, got -3"),
        ({"step_mult": 0.0}, "step_mult must be positive, got 0.0"),
        ({"exp_mult": -1.0}, "exp_mult must be positive, got -1.0"),
    ],
)
def test_bad_values_of_the_mlp_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        MLPOptimizer(SPECS["mlp"], **settings)

"""Learned optimizers against slow references written out for one weight or tensor at a time."""

from itertools import product
from math import exp, log, sqrt, tanh

import pytest
import torch
from hydra.utils import instantiate

from learned_opt.core import tree
from learned_opt.optimizers.adafactor_features import AdafactorFeatures
from learned_opt.optimizers.celo import Celo
from learned_opt.optimizers.celo2 import Celo2
from learned_opt.optimizers.celo_adam import CeloAdam
from learned_opt.optimizers.controller import AdamController
from learned_opt.optimizers.features import Reading
from learned_opt.optimizers.lstm import LSTMCell, LSTMOptimizer, log_and_sign
from learned_opt.optimizers.mlp import MLPOptimizer
from learned_opt.optimizers.velo import VeLO
from tests.cases import SPECS
from tests.compose.test_configs import composed
from tests.optimizers.test_optimizers import tensors

TAUS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
LOSS = torch.tensor(1.0)


def published(name: str) -> torch.nn.Module:
    """The optimizer of a YAML, in float64."""
    torch.manual_seed(0)
    return instantiate(composed("+task=mlp", f"meta_optimizer={name}").meta_optimizer)(
        SPECS["mlp"]
    ).double()


def dense(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The layers one after the other, with ReLU between them."""
    layers = list(network.layers)
    for layer in layers[:-1]:
        inputs = (inputs @ layer.weight + layer.bias).relu()
    return inputs @ layers[-1].weight + layers[-1].bias


def steps(optimizer: torch.nn.Module, count: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Parameters before, gradients and updates of each of the steps."""
    params = tensors(0)
    trace = ([], [], [])
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

        time = [tanh(2 / tau - 1) for tau in TAUS]
        for index in product(*map(range, param.shape)):
            of_weight = [column[index].item() for column in columns]
            features = torch.tensor(of_weight + time, dtype=torch.float64)
            direction, magnitude = dense(optimizer.function, features).tolist()
            expected = -1e-3 * direction * exp(1e-3 * magnitude)
            assert updates[2][name][index].item() == pytest.approx(expected, rel=1e-7)


def test_adafactor_features_are_the_published_39_without_time() -> None:
    """Of one entry of a matrix and one of a vector, after two steps; the decays at their start."""
    features = AdafactorFeatures().double()
    gradients = [tensors(seed) for seed in (1, 2)]
    params = tensors(0)
    state = features.init_state(params)
    for step, grads in enumerate(gradients, start=1):
        values, state = features(Reading(grads, params, torch.tensor(step)), state)

    def average(decay: float, of) -> torch.Tensor:
        return sum((1 - decay) * decay**age * of(g) for age, g in enumerate(reversed(history)))

    for name, param in params.items():
        history = [grads[name] for grads in gradients]
        grad = gradients[-1][name]
        momenta = [average(decay, lambda g: g) for decay in (0.9, 0.99, 0.999)]
        second = average(0.999, torch.square)
        rows = columns = [average(decay, torch.square) for decay in (0.9, 0.99, 0.999)]
        factors = [(square + 1e-9).rsqrt() for square in rows]
        if param.ndim == 2:
            longest = max((0, 1), key=lambda axis: (param.shape[axis], axis))
            squares = rows
            rows = [square.mean(longest, keepdim=True) for square in squares]
            columns = [square.mean(1 - longest, keepdim=True) for square in squares]
            # the outer product of both over their mean
            pairs = zip(rows, columns, strict=True)
            factors = [((r / (r.mean() + 1e-9)) * c).rsqrt() for r, c in pairs]

        inverse = (second + 1e-6).rsqrt()
        expected = [grad, param, *momenta, second, *[m * inverse for m in momenta], inverse]
        expected += [grad * factor for factor in factors] + rows + columns
        expected += [(mean + 1e-8).rsqrt() for mean in (*rows, *columns)]
        expected += [m * factor for m, factor in zip(momenta, factors, strict=True)]
        assert values[name].shape == (*param.shape, 28)
        for channel, value in enumerate(expected):
            normalised = unit(value.expand(param.shape))
            torch.testing.assert_close(values[name][..., channel], normalised, msg=f"{channel}")


def test_decays_follow_theta() -> None:
    features = AdafactorFeatures().double()
    features.momentum_decays.shift.data[:] = torch.tensor([0.0, log(2) / 10, -log(2) / 10])
    shifted = torch.tensor([0.9, 0.98, 0.9995]).double()
    torch.testing.assert_close(features.momentum_decays(0), shifted)
    with pytest.raises(ValueError, match=r"a decay must lie between 0 and 1, got 1\.0"):
        AdafactorFeatures(rms_decays=(1.0,))
    with pytest.raises(
        ValueError, match=r"decays must be one rms_decay and as many .* got 1, 1 and 3"
    ):
        AdafactorFeatures(momentum_decays=(0.9,))


@torch.no_grad()
def test_lstm_cell_is_that_of_torch() -> None:
    ours = LSTMCell(3, 4).double()
    peer = torch.nn.LSTMCell(3, 4).double()
    forget, write, read, candidate = ours.weight.mT.chunk(4)
    rows = torch.cat([write, forget, candidate, read])  # torch's order
    peer.weight_ih.copy_(rows[:, :3])
    peer.weight_hh.copy_(rows[:, 3:])
    forget, write, read, candidate = ours.bias.chunk(4)
    peer.bias_ih.copy_(torch.cat([write, forget, candidate, read]))
    peer.bias_hh.zero_()

    inputs = torch.randn(5, 3).double()
    state = torch.randn(2, 5, 4).double()
    torch.testing.assert_close(ours(inputs, state), torch.stack(peer(inputs, tuple(state))))


def test_gradients_are_read_by_logarithm_and_sign() -> None:
    grads = [exp(-3.0), -exp(5.0), 0.0, exp(-11.0), -exp(-10.0)]
    read = log_and_sign(torch.tensor(grads, dtype=torch.float64), 10.0)
    expected = [[-0.3, 1], [0.5, -1], [-1, 0], [-1, exp(-1)], [-1, -1]]
    torch.testing.assert_close(read, torch.tensor(expected, dtype=torch.float64))


@torch.no_grad()
def test_every_weight_has_an_lstm_of_its_own() -> None:
    optimizer = published("lstm")
    _, grads, updates = steps(optimizer, 3)
    for index in ((0, 0), (2, 1)):
        states = [torch.zeros(2, 20, dtype=torch.float64)] * 2
        for t in range(3):
            hidden = log_and_sign(grads[t]["layers.1.weight"][index], 10.0)
            for layer, cell in enumerate(optimizer.cells):
                states[layer] = cell(hidden, states[layer])
                hidden = states[layer][0]
            expected = 0.01 * (hidden @ optimizer.weight + optimizer.bias)
            torch.testing.assert_close(updates[t]["layers.1.weight"][index], expected.squeeze())


@torch.no_grad()
def test_controller_is_adam_until_its_knobs_move() -> None:
    optimizer = published("adam_controller")
    _, grads, updates = steps(optimizer, 3)
    for name in updates[0]:
        first = second = 0
        for t in range(3):
            first = 0.9 * first + 0.1 * grads[t][name]
            second = 0.999 * second + 0.001 * grads[t][name] ** 2
            expected = -0.01 * (1 + 1e-8) * first / (1e-8 + (second + 1e-10).sqrt())
            torch.testing.assert_close(updates[t][name], expected, rtol=1e-5, atol=0)

    optimizer.bias.copy_(torch.tensor([3.0, 0, 0, 0]))  # log lr moves by 10 x 0.01 x 3 a step
    _, _, faster = steps(optimizer, 3)
    for t in range(3):
        expected = exp(0.3 * t) * updates[t]["layers.0.bias"]
        torch.testing.assert_close(faster[t]["layers.0.bias"], expected)


@torch.no_grad()
def test_knobs_stay_in_range() -> None:
    optimizer = published("adam_controller")
    optimizer.bias.copy_(torch.tensor([1e4, 1e4, -1e4, 1e4]))
    _, _, updates = steps(optimizer, 3)
    knobs = optimizer._clip(optimizer.knobs + 1e4 * torch.tensor([1, 1, -1, 1]))
    lr, left1, left2, eps = (10 * knobs).exp().tolist()
    assert (lr, left1, left2, eps) == pytest.approx((1e3, 1, exp(-10), 1e4), rel=0.02)
    assert all(update.isfinite().all() for update in updates[2].values())


@torch.no_grad()
def test_celo2_moves_matrices_by_equal_orthogonal_steps_and_vectors_by_adam() -> None:
    optimizer = published("celo2")
    _, grads, updates = steps(optimizer, 3)
    for update in updates[2].values():
        if update.ndim == 2:
            assert update.square().mean().sqrt().item() == pytest.approx(1e-3, rel=1e-5)
            values = torch.linalg.svdvals(update)
            assert values.min() / values.max() > 0.5

    bias_grads = [step["layers.0.bias"] for step in grads]
    first = sum(0.1 * 0.9 ** (2 - t) * grad for t, grad in enumerate(bias_grads))
    second = sum(0.05 * 0.95 ** (2 - t) * grad**2 for t, grad in enumerate(bias_grads))
    unbiased = (first / (1 - 0.9**3)) / (second / (1 - 0.95**3)).sqrt()
    torch.testing.assert_close(updates[2]["layers.0.bias"], -0.02 * unbiased, rtol=1e-5, atol=0)


def test_published_sizes() -> None:
    celo2 = 329 + 1 + 3  # the MLP, lr, Adam
    sizes = {"mlp": 1_762, "adafactor_mlp": 2_409, "lstm": 5_141, "celo2": celo2}
    # those of the authors' files without the numbers that never act
    sizes |= {"celo": 35_803, "celo_adam": 35_649, "velo": 44_193}
    for name, size in sizes.items():
        assert tree.num_elements(dict(published(name).named_parameters())) == size, name


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MLPOptimizer, {"hidden_layers": 0}, "hidden_layers must be at least 1, got 0"),
        (MLPOptimizer, {"hidden_size": -3}, "hidden_size must be at least 1, got -3"),
        (MLPOptimizer, {"step_mult": 0.0}, "step_mult must be positive, got 0.0"),
        (MLPOptimizer, {"exp_mult": -1.0}, "exp_mult must be positive, got -1.0"),
        (LSTMOptimizer, {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        (LSTMOptimizer, {"log_range": 0.0}, "log_range must be positive, got 0.0"),
        (AdamController, {"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        (AdamController, {"lr": -1.0}, "lr must be positive, got -1.0"),
        (AdamController, {"beta2": 1.0}, "beta2 must lie between 0 and 1, got 1.0"),
        (Celo, {"num_steps": 0}, "num_steps must be at least 1, got 0"),
        (CeloAdam, {"lr": 0.0}, "lr must be positive, got 0.0"),
        (VeLO, {"bank_size": 0}, "bank_size must be at least 1, got 0"),
        (Celo2, {"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        (Celo2, {"vector_mult": 0.0}, "vector_mult must be positive, got 0.0"),
    ],
)
def test_bad_values_are_named(kind, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(SPECS["mlp"], **settings)


def test_the_length_of_the_training_must_be_known() -> None:
    optimizer = Celo(SPECS["mlp"])
    params = tensors(0)
    with pytest.raises(ValueError, match="Celo needs num_steps, the inner steps of the training"):
        optimizer.init_state(params)
    told = optimizer.with_num_steps(7)
    assert told.init_state(params)["num_steps"].item() == 7
    assert optimizer.num_steps is None
    assert told.function is optimizer.function  # one theta

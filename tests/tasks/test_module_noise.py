"""Dropout and noise of a forward pass come from a key: in mean, in distribution, and under vmap."""

from math import sqrt

import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_unflatten

from learned_opt.core import tree
from learned_opt.core.compiled import Compiled, trace
from learned_opt.core.rng import generator
from tasks import ModuleTask
from tasks.keyed import bits
from tasks.keyed.mode import KeyedDraws

KEYS = (0, 7, 2**61 + 5)
SIZE = 40_000


@pytest.mark.parametrize("key", KEYS)
def test_keyed_numbers_have_their_distributions(key) -> None:
    uniform = bits.uniform(torch.tensor(key), 0, (SIZE,))
    normal = bits.normal(torch.tensor(key), 1, (SIZE,))
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3

    # neighbours, draws and keys have nothing to do with each other
    others = [
        uniform.roll(1),
        uniform.roll(256),
        bits.uniform(torch.tensor(key), 1, (SIZE,)),
        bits.uniform(torch.tensor(key + 1), 0, (SIZE,)),
    ]
    for other in others:
        correlation = torch.corrcoef(torch.stack([uniform, other]))[0, 1]
        assert correlation.abs() < 4 / sqrt(SIZE)


LAYERS = {
    "dropout": nn.Dropout(0.3),
    "in place": nn.Dropout(0.3, inplace=True),
    "maps": nn.Dropout2d(0.3),
    "alpha": nn.AlphaDropout(0.3),
    "alpha maps": nn.FeatureAlphaDropout(0.3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_has_the_mean_and_deviation_of_torchs(name) -> None:
    torch.manual_seed(0)
    ones = torch.ones(200, 50, 2, 2)
    expected = LAYERS[name](ones.clone())
    with KeyedDraws(torch.tensor(11)):
        dropped = LAYERS[name](ones.clone())

    num_draws = ones.numel() if "maps" not in name else 200 * 50
    error = 5 * expected.std() / sqrt(num_draws)
    assert dropped.unique().numel() == 2
    torch.testing.assert_close(dropped.mean(), expected.mean(), rtol=0, atol=error.item())
    torch.testing.assert_close(dropped.std(), expected.std(), rtol=0, atol=error.item())


def test_noise_of_torch_is_keyed_and_its_generator_is_left_alone() -> None:
    def draws() -> list[torch.Tensor]:
        like = torch.zeros(SIZE)
        return [
            torch.randn_like(like),
            torch.randn(SIZE),
            torch.normal(0.0, 1.0, (SIZE,)),
            torch.empty(SIZE).normal_(),
            torch.distributions.Normal(like, like + 1).rsample(),
            sqrt(12) * (torch.rand(SIZE) - 0.5),
            sqrt(12) * (torch.rand_like(like) - 0.5),
            sqrt(12) * (torch.empty(SIZE).uniform_() - 0.5),
            2 * torch.bernoulli(like + 0.5) - 1,
            2 * torch.empty(SIZE).bernoulli_(0.5) - 1,
            torch.empty(SIZE).exponential_() - 1,
        ]

    before = torch.get_rng_state()
    with KeyedDraws(torch.tensor(3)):
        first = draws()
    with KeyedDraws(torch.tensor(3)):
        again = draws()
    with KeyedDraws(None):
        means = draws()
    assert torch.equal(torch.get_rng_state(), before)

    for drawn, other, mean in zip(first, again, means, strict=True):
        assert torch.equal(drawn, other)
        assert drawn.mean().abs() < 5 / sqrt(SIZE)
        assert (drawn.var() - 1).abs() < 0.1
        assert mean.abs().max() == 0
    assert not torch.equal(first[0], first[1])


RECURRENT = {
    "lstm": nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True),
    "projection": nn.LSTM(3, 4, proj_size=2),
    "gru": nn.GRU(3, 4, num_layers=2, bias=False),
    "tanh": nn.RNN(3, 4),
    "relu": nn.RNN(3, 4, nonlinearity="relu", batch_first=True),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrences_written_out_are_torchs(name) -> None:
    layer = RECURRENT[name]
    inputs = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    expected, last = layer(inputs)
    with KeyedDraws(None):
        outputs, other = layer(inputs)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(other, last)


def test_recurrences_drop_between_their_layers() -> None:
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    inputs = torch.randn(5, 6, 3)
    with KeyedDraws(torch.tensor(0)) as mode:
        first, _ = layer(inputs)
    with KeyedDraws(torch.tensor(1)):
        second, _ = layer(inputs)
    assert mode.draws.num_draws == 1
    assert not torch.equal(first, second)


def test_attention_written_out_is_torchs() -> None:
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    with KeyedDraws(None):
        outputs = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(outputs, expected)

    total = torch.zeros_like(expected)
    for number in range(500):
        with KeyedDraws(torch.tensor(number)):
            total += functional.scaled_dot_product_attention(
                query, key, value, dropout_p=0.2, is_causal=True
            )
    torch.testing.assert_close(total / 500, expected, rtol=0, atol=0.2)


class WithDropout(nn.Module):
    """A layer with dropout, by its module and by its function, and multi-head attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.dropout = nn.Dropout(0.3)

    def forward(self, inputs):
        attended, _ = self.attention(inputs, inputs, inputs)
        return functional.dropout(self.dropout(attended), 0.3, self.training)


def dropping() -> ModuleTask:
    inputs = torch.randn(30, 3, 4, generator=torch.Generator().manual_seed(0))
    return ModuleTask(WithDropout, functional.mse_loss, inputs, batch_size=6, valid_fraction=0.25)


def test_equal_keys_equal_losses_and_chains_differ() -> None:
    task = dropping()
    params = task.init(generator(0), {})
    batch = task.batch(generator(1), {})
    other = {**batch, "noise": batch["noise"] + 1}

    before = torch.get_rng_state()
    loss = task.loss(params, batch, {})
    assert torch.equal(loss, task.loss(params, batch, {}))
    assert not torch.equal(loss, task.loss(params, other, {}))
    assert torch.equal(torch.get_rng_state(), before)

    both = {name: torch.stack([value, other[name]]) for name, value in batch.items()}
    losses = vmap(lambda drawn: task.loss(params, drawn, {}))(both)
    torch.testing.assert_close(losses, torch.stack([loss, task.loss(params, other, {})]))


def test_traced_draws_are_those_of_eager_steps() -> None:
    task = dropping()
    params = task.init(generator(0), {})
    batches = [task.batch(generator(seed), {}) for seed in range(2)]
    both = tree.stack(batches)

    def gradients(params, batches):
        return vmap(grad(lambda values, batch: task.loss(values, batch, {})), (None, 0))(
            params, batches
        )

    leaves, structure = tree_flatten((params, both))
    graph, outputs = trace(gradients, leaves, structure)
    traced = tree_unflatten(graph(*leaves), outputs)
    torch.testing.assert_close(traced, gradients(params, both))


@pytest.mark.slow
def test_compiled_draws_are_those_of_eager_steps() -> None:
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 4))
    task = ModuleTask(module, functional.mse_loss, inputs, batch_size=6)
    params = task.init(generator(0), {})
    both = tree.stack([task.batch(generator(seed), {}) for seed in range(2)])

    def losses(params, batches):
        return vmap(lambda batch: task.loss(params, batch, {}))(batches)

    compiled = Compiled(losses)
    torch.testing.assert_close(compiled(params, both), losses(params, both))
    assert not compiled.failed


def test_evaluation_and_validation_drop_nothing() -> None:
    task = dropping()
    params = task.init(generator(0), {})
    plain = WithDropout().eval()

    rows = task.test.rows
    inputs = task.test.gather(rows)["0"]
    expected = functional.mse_loss(functional_call(plain, params, (inputs,)), inputs)
    torch.testing.assert_close(task.evaluate(params, {})["test_loss"], expected)

    batch = task.batch(generator(2), {}, "valid")
    inputs = task.train.source.gather(batch)["0"]
    expected = functional.mse_loss(functional_call(plain, params, (inputs,)), inputs)
    torch.testing.assert_close(task.loss(params, batch, {}), expected)

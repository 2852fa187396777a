"""GradMetaNet: its published sizes, its symmetries, and its spaces."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.optimizers.factors import Factors
from learned_opt.optimizers.features import Features, Reading
from learned_opt.optimizers.gradmetanet import GradMetaNet
from learned_opt.optimizers.mlp import MLPOptimizer
from learned_opt.optimizers.neuron_moments import NeuronMoments
from learned_opt.optimizers.neuron_spaces import neuron_spaces
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import infer_permutation_spec
from learned_opt.unf import Pointwise
from tests.cases import READS_EXAMPLES, SPECS, others_slow


class Recurrent(nn.Module):
    """An LSTM of torch, whose gates are packed, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cell(inputs)[0])


class Attention(nn.Module):
    """Packed attention with a residual stream and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.embed(inputs)
        return self.head(self.norm(stream + self.attention(stream, stream, stream)[0]))


def convolutions() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(2))


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (6, 3)),
    "conv": (convolutions, (6, 2, 5, 5)),
    "lstm": (Recurrent, (6, 4, 3)),
    "attention": (Attention, (6, 4, 3)),
}


class Problem:
    """A regression of a network, in float64."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        make, shape = NETWORKS[name]
        self.network = make().double()
        self.batch = {"x": torch.randn(shape, dtype=torch.float64)}
        self.batch["y"] = torch.randn_like(self.network(self.batch["x"]))
        self.params = {}
        for key, value in self.network.named_parameters():
            self.params[key] = value.detach() + 0.1 * torch.randn_like(value)
        self.spec = infer_permutation_spec(self.network, self.batch["x"])

    def loss(self, params: dict, batch: dict, task: dict) -> Tensor:
        return (functional_call(self.network, params, (batch["x"],)) - batch["y"]).square().mean()

    def channels(
        self,
        features: Features,
        params: dict | None = None,
        batch: dict | None = None,
        change: Callable[[dict[str, Factors]], dict[str, Factors]] = lambda factors: factors,
    ) -> dict[str, Tensor]:
        """What features say of all weights at the second of two steps."""
        params = self.params if params is None else params
        batch = self.batch if batch is None else batch
        tapped = TappedLoss(self.loss, params, batch, {})
        state = features.init_state(params)
        channels = {}
        for step, scale in enumerate((1.0, 0.9), start=1):
            scaled = {key: scale * value for key, value in params.items()}
            grads, _, factors = tapped(scaled, batch, {})
            reading = Reading(grads, scaled, torch.tensor(step), change(factors), self.spec)
            with torch.no_grad():
                channels, state = features(reading, state)
        return channels


def make(**settings) -> GradMetaNet:
    torch.manual_seed(1)
    return GradMetaNet(**{"width": 4, "num_examples": None, **settings}).double()


def gap(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.parametrize(("width", "count"), [(16, 4_860), (32, 15_324)])
def test_published_sizes(width: int, count: int) -> None:
    assert sum(weight.numel() for weight in GradMetaNet(width=width).parameters()) == count


def test_thirty_three_channels_make_a_deep_set_of_3233_numbers() -> None:
    features = {"gradmetanet": GradMetaNet}
    optimizer = UNFOptimizer(SPECS["mlp"], head=Pointwise, extra_features=features)
    of_features = sum(weight.numel() for weight in optimizer.extra.parameters())
    assert sum(weight.numel() for weight in optimizer.parameters()) - of_features == 3_233 + 3


CHANNELS = list(product(NETWORKS, (make, NeuronMoments)))
CHANNELS_ONCE = [pair for pair in CHANNELS if pair[0] in ("mlp", "conv")]
CHANNELS_ONCE.append(("attention", make))


@pytest.mark.parametrize(("name", "kind"), others_slow(CHANNELS, CHANNELS_ONCE))
def test_channels_move_with_the_neurons(name: str, kind) -> None:
    problem = Problem(name)
    element = problem.spec.draw(problem.params, torch.Generator().manual_seed(3))
    assert any((index != torch.arange(len(index))).any() for index in element.values())

    features = kind()
    moved = problem.channels(features, problem.spec.apply(problem.params, element))
    expected = problem.spec.apply(problem.channels(features), element)
    assert gap(moved, expected) < 1e-12
    assert gap(moved, problem.channels(features)) > 1e-6  # control: they do move
    assert all(channel.abs().max() > 0 for channel in moved.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_examples_changes_nothing(name: str) -> None:
    problem = Problem(name)
    features = make()
    expected = problem.channels(features)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {key: value[order] for key, value in problem.batch.items()}
    assert gap(problem.channels(features, batch=shuffled), expected) < 1e-12


def test_examples_that_change_seats_in_one_space_alone_are_noticed() -> None:
    """Controls of the two tests above."""
    problem = Problem("mlp")
    features = make()
    expected = problem.channels(features)

    def shuffled(factors: dict[str, Factors]) -> dict[str, Factors]:
        (site,) = factors["2.weight"].sites
        rolled = replace(site, activations=site.activations.roll(1, 0))
        return factors | {"2.weight": replace(factors["2.weight"], sites=(rolled,))}

    assert gap(problem.channels(features, change=shuffled), expected) > 1e-5

    # inputs are told apart by their code: they are no permutation of the network
    index = torch.tensor([2, 0, 1])
    params = problem.params | {"0.weight": problem.params["0.weight"][:, index]}
    batch = problem.batch | {"x": problem.batch["x"][:, index]}
    moved = problem.channels(features, params, batch)["0.weight"]
    assert (moved - expected["0.weight"][:, index]).abs().max() > 1e-5


def test_weights_of_a_neuron_share_its_space_whatever_is_packed() -> None:
    problem = Problem("lstm")
    tapped = TappedLoss(problem.loss, problem.params, problem.batch, {})
    factors = tapped(problem.params, problem.batch, {})[2]
    spaces = neuron_spaces(problem.spec, problem.params, factors)
    # inputs, hidden neurons, hidden neurons of four gates, outputs
    assert sorted(spaces.sizes.values()) == [2, 3, 4, 16]
    assert set(spaces.connections) == set(problem.params)


def test_few_examples_are_read_where_few_are_asked_for() -> None:
    problem = Problem("mlp")
    every = problem.channels(make())
    assert gap(problem.channels(make(num_examples=6)), every) == 0
    assert gap(problem.channels(make(num_examples=2)), every) > 1e-6


@pytest.mark.parametrize("name", READS_EXAMPLES)
def test_every_number_of_theta_gets_a_gradient(name: str) -> None:
    problem = Problem("mlp")
    torch.manual_seed(0)
    optimizer = READS_EXAMPLES[name](problem.spec).double()
    assert optimizer.needs_factors

    tapped = TappedLoss(problem.loss, problem.params, problem.batch, {})
    grads, loss, factors = tapped(problem.params, problem.batch, {})
    state = optimizer.init_state(problem.params)
    _, state = optimizer(grads, state, problem.params, loss, factors)
    updates, after = optimizer(grads, state, problem.params, loss, factors)
    assert after["step"].item() == 2
    sum(update.square().sum() for update in updates.values()).backward()
    for key, parameter in optimizer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_one_theta_runs_on_every_network() -> None:
    first = Problem("mlp")
    extra = {"gradmetanet": partial(GradMetaNet, width=4)}
    optimizer = UNFOptimizer(first.spec, head=Pointwise, channels=4, extra_features=extra)
    assert not optimizer.separable
    for name in NETWORKS:
        problem = Problem(name)
        bound = optimizer.rebind(problem.spec).double()
        tapped = TappedLoss(problem.loss, problem.params, problem.batch, {})
        arguments = tapped(problem.params, problem.batch, {})
        grads, loss, factors = arguments
        updates, _ = bound(grads, bound.init_state(problem.params), problem.params, loss, factors)
        assert {key: value.shape for key, value in updates.items()} == {
            key: value.shape for key, value in problem.params.items()
        }


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (partial(GradMetaNet, width=0), "width must be at least 1, got 0"),
        (partial(GradMetaNet, num_examples=0), "num_examples must be at least 1, got 0"),
        (partial(GradMetaNet, neuron_layers=-1), "neuron_layers must not be negative, got -1"),
        (partial(GradMetaNet, decays=(1.0,)), r"decays must lie between 0 and 1, got 1\.0"),
        (partial(NeuronMoments, decay=1.0), r"decay must lie between 0 and 1, got 1\.0"),
    ],
)
def test_bad_settings_are_one_sentence(make_bad, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()


def test_separable_are_those_that_read_one_tensor_at_a_time() -> None:
    spec = SPECS["mlp"]
    assert MLPOptimizer(spec, extra_features={"moments": NeuronMoments}).separable
    assert not MLPOptimizer(spec, extra_features={"set": GradMetaNet}).separable

"""ModuleTask against the same problem by hand, and against the families that are there."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional

from learned_opt.core.rng import generator
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_sgdm
from tasks import ModuleTask
from tasks.module_losses import next_token_cross_entropy, sequence_cross_entropy
from tasks.networks.mlp import MLP
from tasks.supervised import Classification
from tests.cases import images


def points(num_rows: int = 30) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_rows, 3, generator=source)
    return inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3


def test_linear_regression_has_its_closed_form() -> None:
    inputs, targets = points()
    task = ModuleTask(partial(nn.Linear, 3, 1), functional.mse_loss, (inputs, targets))
    params = task.init(generator(0, "init"), {})
    batch = task.batch(generator(0, "batch"), {})

    x = inputs[batch["index"]]
    rest = x @ params["weight"].T + params["bias"] - targets[batch["index"]]  # (B, 1)
    torch.testing.assert_close(task.loss(params, batch, {}), rest.square().mean())

    gradient = grad(task.loss)(params, batch, {})
    torch.testing.assert_close(gradient["weight"], 2 * rest.T @ x / len(x))

    exact = {"weight": torch.tensor([[1.0, -2.0, 0.5]]), "bias": torch.tensor([0.3])}
    assert task.evaluate(exact, {})["test_loss"] < 1e-12


@pytest.mark.parametrize("valid_fraction", [0.0, 0.2])
def test_equals_classification_with_the_same_network(valid_fraction) -> None:
    data = images()
    network = partial(MLP, hidden_sizes=(5,))
    plain = Classification("noise", network, data, 7, valid_fraction)
    task = ModuleTask(
        partial(network, (1, 4, 4), 3),
        functional.cross_entropy,
        data,
        batch_size=7,
        valid_fraction=valid_fraction,
        eval_batch_size=3,
    )

    params = plain.init(generator(0, "init"), {})
    for split in plain.splits:
        batch = plain.batch(generator(1, split), {}, split)
        other = task.batch(generator(1, split), {}, split)
        assert torch.equal(task.loss(params, other, {}), plain.loss(params, batch, {}))

    assert task.splits == plain.splits
    torch.testing.assert_close(task.evaluate(params, {}), plain.evaluate(params, {}))


def test_batch_loss_gets_the_module_and_a_batch_as_a_loader_gives_it() -> None:
    inputs, targets = points()

    def with_decay(module: nn.Linear, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return functional.mse_loss(module(x), y) + module.weight.square().sum()

    plain = ModuleTask(partial(nn.Linear, 3, 1), functional.mse_loss, (inputs, targets))
    task = ModuleTask(partial(nn.Linear, 3, 1), data=(inputs, targets), batch_loss=with_decay)
    params = task.init(generator(0), {})
    batch = task.batch(generator(1), {})

    # weights that a loss reads are those of the chain
    expected = plain.loss(params, batch, {}) + params["weight"].square().sum()
    torch.testing.assert_close(task.loss(params, batch, {}), expected)
    assert grad(task.loss)(params, batch, {})["weight"].abs().min() > 0


def test_a_single_column_is_input_and_target() -> None:
    inputs, _ = points()
    task = ModuleTask(partial(nn.Linear, 3, 3, bias=False), functional.mse_loss, inputs)
    assert task.evaluate({"weight": torch.eye(3)}, {})["test_loss"] == 0


def test_next_token_loss_is_that_of_every_next_token() -> None:
    tokens = torch.tensor([[0, 2, 1]])
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(-1)
    expected = -(logs[0, 0, 2] + logs[0, 1, 1]) / 2
    torch.testing.assert_close(next_token_cross_entropy(logits, tokens), expected)


def test_figures_are_those_that_are_asked_for() -> None:
    data = images()
    figures = {"margin": lambda outputs, labels: outputs.max() - outputs.min()}
    module = partial(MLP, (1, 4, 4), 3, hidden_sizes=())
    task = ModuleTask(module, nn.CrossEntropyLoss(), data, figures=figures)
    params = {name: torch.zeros_like(p) for name, p in task.init(generator(0), {}).items()}
    assert task.evaluate(params, {}).keys() == {"margin", "test_loss"}
    assert task.evaluate(params, {})["margin"] == 0


class Answer(NamedTuple):
    """What models of Hugging Face return, but smaller."""

    hidden: Tensor
    logits: Tensor


class Answering(nn.Module):
    """A module that returns an object, a dict or a tuple with the outputs in it."""

    def __init__(self, pack) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.pack = pack

    def forward(self, inputs):
        return self.pack(inputs, self.linear(inputs))


@pytest.mark.parametrize(
    ("pack", "output"),
    [
        (Answer, "logits"),
        (lambda hidden, outputs: {"hidden": hidden, "logits": outputs}, "logits"),
        (lambda hidden, outputs: (hidden, outputs), 1),
    ],
)
def test_outputs_that_are_objects_are_read_by_their_part(pack, output) -> None:
    plain = ModuleTask(partial(nn.Linear, 3, 1), functional.mse_loss, points())
    task = ModuleTask(partial(Answering, pack), functional.mse_loss, points(), output=output)
    params = plain.init(generator(0), {})
    batch = plain.batch(generator(1), {})
    renamed = {f"linear.{name}": value for name, value in params.items()}
    assert torch.equal(task.loss(renamed, batch, {}), plain.loss(params, batch, {}))


def test_sequence_loss_does_not_count_positions_of_minus_100() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, -100], [3, -100, -100]])
    logs = logits.log_softmax(-1)
    expected = -(logs[0, 0, 1] + logs[0, 1, 2] + logs[1, 0, 3]) / 3
    torch.testing.assert_close(sequence_cross_entropy(logits, targets), expected)


def test_validation_batches_measure_a_loss_in_the_inner_loop() -> None:
    data = images()
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Dropout(0.5))
    task = ModuleTask(module, functional.cross_entropy, data, valid_fraction=0.2, batch_size=4)
    optimizer = make_sgdm(symmetry_of(task)[1])
    unroll = Unroll(task, optimizer, compile=False)

    keys = [(0, 0), (0, 1)]
    theta = {name: torch.stack([p, p]) for name, p in optimizer.named_parameters()}
    chains = unroll.start(keys)
    batches = unroll.batches(keys, chains, 2)
    measured = unroll.batches(keys, chains, 2, "valid")
    with torch.no_grad():
        losses, _ = unroll.run(theta, chains, batches, measured=measured)

    params = {name: value[0] for name, value in chains["params"].items()}
    first = {name: value[0, 0] for name, value in measured.items()}
    torch.testing.assert_close(losses[0, 0], task.loss(params, first, {}))

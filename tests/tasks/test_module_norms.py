"""Batch norm: batch statistics in training, those of training data in evaluation."""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from learned_opt.core.rng import generator
from tasks import ModuleTask
from tasks.module import NORM_BATCHES


class Convolutional(nn.Module):
    """Two convolutions with batch norm, in place as torchvision writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.other_norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.norm(self.first(images)))
        hidden = self.relu(self.other_norm(self.second(hidden)) + hidden)
        return self.head(hidden.mean((2, 3)))


def pictures() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    images = 3 + 2 * torch.randn(80, 1, 5, 5, generator=source)
    return images, torch.randint(3, (80,), generator=source)


def trained_task(module) -> tuple[ModuleTask, dict[str, Tensor]]:
    task = ModuleTask(module, functional.cross_entropy, pictures(), batch_size=8)
    params = task.init(generator(0), {})
    return task, {name: value + 0.1 for name, value in params.items()}


def test_training_is_that_of_a_module_in_training_mode() -> None:
    task, params = trained_task(Convolutional)
    batch = task.batch(generator(1), {})
    images, labels = task.train.source.gather(batch).values()

    plain = Convolutional().train()
    plain.load_state_dict(params, strict=False)
    expected = functional.cross_entropy(plain(images), labels)
    torch.testing.assert_close(task.loss(params, batch, {}), expected)


def test_evaluation_is_a_plain_loop_with_statistics_of_training_batches() -> None:
    task, params = trained_task(Convolutional)
    plain = Convolutional()
    plain.load_state_dict(params, strict=False)

    # what torch has for statistics without running averages
    batches = []
    for rows in task.train.spread(NORM_BATCHES, 8, task.num_train):
        batches.append(task.train.gather(rows)["0"])
    assert len(batches) == NORM_BATCHES
    update_bn(batches, plain)
    plain.eval()

    images, labels = task.test.gather(task.test.rows).values()
    with torch.no_grad():
        outputs = plain(images)
    figures = task.evaluate(params, {})
    torch.testing.assert_close(figures["test_loss"], functional.cross_entropy(outputs, labels))
    accuracy = (outputs.argmax(-1) == labels).float().mean()
    torch.testing.assert_close(figures["accuracy"], accuracy)


def test_chains_evaluate_with_statistics_of_their_parameters() -> None:
    task, params = trained_task(Convolutional)
    other = {name: value * 1.5 for name, value in params.items()}
    both = {name: torch.stack([value, other[name]]) for name, value in params.items()}
    together = vmap(lambda values: task.evaluate(values, {}))(both)
    alone = torch.stack([task.evaluate(p, {})["test_loss"] for p in (params, other)])
    torch.testing.assert_close(together["test_loss"], alone)
    assert alone[0] != alone[1]


def test_running_statistics_of_the_module_stay() -> None:
    module = Convolutional()
    before = copy.deepcopy(module.state_dict())
    task, params = trained_task(module)
    task.loss(params, task.batch(generator(1), {}), {})
    task.evaluate(params, {})

    buffers = dict(task.network.named_buffers())
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)
        if name in buffers:
            assert torch.equal(buffers[name], value)


def test_buffers_that_stay_are_constants() -> None:
    class Shifted(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.register_buffer("shift", torch.full((3,), shift))

        def forward(self, inputs):
            return self.linear(inputs) + self.shift

    inputs = torch.randn(20, 3)
    task = ModuleTask(partial(Shifted, 2.0), functional.mse_loss, inputs)
    params = task.init(generator(0), {})
    expected = functional_call(Shifted(2.0), params, (inputs,))
    batch = {"index": torch.arange(20)}
    torch.testing.assert_close(task.loss(params, batch, {}), functional.mse_loss(expected, inputs))

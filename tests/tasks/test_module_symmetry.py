"""Specs of modules that others wrote, inferred from the loss of a ModuleTask and proved on it."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_opt.core.rng import generator
from learned_opt.inner.task_spec import symmetry_of
from tasks import ModuleTask
from tasks.module_losses import next_token_cross_entropy

SOURCE = torch.Generator().manual_seed(0)
TOKENS = torch.randint(11, (30, 4), generator=SOURCE)
IMAGES = torch.rand(30, 3, 6, 6, generator=SOURCE)
LABELS = torch.randint(4, (30,), generator=SOURCE)


class LSTMText(nn.Module):
    """A text model on ``nn.LSTM``, with dropout between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 3)
        self.lstm = nn.LSTM(3, 5, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(5, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.embed(tokens))
        return self.head(outputs)


class Encoder(nn.Module):
    """A text model on ``nn.TransformerEncoder``, whose mask is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(4, 11)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(4))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens), mask=self.mask))


class BasicBlock(nn.Module):
    """A residual block as torchvision has it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """A residual network with batch norm, in place wherever it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = BasicBlock(2, 5, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))


def gpt2() -> ModuleTask:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=4, vocab_size=11, n_positions=4, eos_token_id=0, bos_token_id=0
    )
    module = partial(GPT2LMHeadModel, config)
    return ModuleTask(module, next_token_cross_entropy, TOKENS, output="logits", batch_size=4)


def resnet_of_the_hub() -> ModuleTask:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=2, hidden_sizes=[5], depths=[1], layer_type="basic", num_labels=4
    )
    data = {"pixel_values": IMAGES, "labels": LABELS}

    def loss(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return module(**batch).loss

    module = partial(ResNetForImageClassification, config)
    return ModuleTask(module, data=data, batch_loss=loss, batch_size=4)


def text(module) -> ModuleTask:
    return ModuleTask(module, next_token_cross_entropy, TOKENS, batch_size=4)


# the task, and parameters with an axis of hidden units, channels or heads that may be permuted
TASKS = {
    "lstm": (partial(text, LSTMText), {"lstm.weight_ih_l0", "lstm.weight_hh_l1"}),
    "encoder": (
        partial(text, Encoder),
        {"encoder.layers.0.linear1.weight", "encoder.layers.0.self_attn.in_proj_weight"},
    ),
    "resnet": (
        lambda: ModuleTask(ResNet, functional.cross_entropy, (IMAGES, LABELS), batch_size=4),
        {"conv1.weight", "layer1.bn1.weight", "layer1.conv2.weight", "fc.weight"},
    ),
}
OF_THE_HUB = {
    "gpt2": (gpt2, {"transformer.h.0.mlp.c_fc.weight", "transformer.h.0.attn.c_attn.weight"}),
    "resnet": (
        resnet_of_the_hub,
        {"resnet.embedder.embedder.convolution.weight", "classifier.1.weight"},
    ),
}


def check(task: ModuleTask, permuted: set[str]) -> None:
    params, spec = symmetry_of(task)  # raises where the spec is no symmetry of the loss
    free = set(spec.names) - set(spec.fixed)
    for name in permuted:
        tensors = [tensor for tensor in spec.axes if tensor.startswith(name)]
        assert any(free & set(spec.axes[tensor]) for tensor in tensors)

    for figure in task.evaluate(task.init(generator(0), {}), {}).values():
        assert figure.isfinite()
    assert list(params) == list(task.init(generator(1), {}))


@pytest.mark.parametrize("name", TASKS)
def test_spec_is_inferred_and_proved(name) -> None:
    make, permuted = TASKS[name]
    check(make(), permuted)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_THE_HUB)
def test_spec_of_a_hugging_face_model_is_inferred_and_proved(name) -> None:
    make, permuted = OF_THE_HUB[name]
    check(make(), permuted)

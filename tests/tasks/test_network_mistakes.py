"""A network author's first mistakes are one sentence each, with the layer and what to do."""

import pytest
import torch
from torch import Tensor, nn

from learned_opt.inner.task_spec import symmetry_of
from tasks.data.images import LabelledImages
from tasks.networks.base import Network
from tasks.supervised import Classification


class Mistaken(Network):
    """A small network with a layer, and a forward of choice behind it."""

    def __init__(self, layer: nn.Module, then=lambda outputs: outputs) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.layer = layer
        self.last = nn.Linear(6, 3)
        self.then = then

    def forward(self, inputs: Tensor) -> Tensor:
        return self.then(self.last(self.layer(self.first(inputs))))


def task(network: nn.Module) -> Classification:
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 3
    data = LabelledImages("toy", images, labels, images, labels, 3)
    return Classification("toy", lambda *_: network, data, batch_size=4)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(4, 3), "network must be a tasks.networks.base.Network, got Linear; derive it"),
        (Mistaken(nn.Dropout(0.5)), r"layer 'layer' \(Dropout\) of network Mistaken drops at"),
        (Mistaken(nn.BatchNorm1d(6)), r"layer 'layer' \(BatchNorm1d\) of network Mistaken keeps"),
        (Mistaken(nn.Linear(5, 6)), "layer 'layer' of network Mistaken fails: mat1 and mat2"),
        (
            Mistaken(nn.ReLU(), lambda y: y if y.sum() > 0 else -y),
            "network Mistaken fails: it takes a number out of a tensor, as in",
        ),
        (Mistaken(nn.ReLU(), lambda y: y * torch.nan), "the loss of task 'toy' is nan near its"),
    ],
)
def test_a_mistake_is_one_sentence(network, message) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        symmetry_of(task(network))
    assert "\n" not in str(refusal.value)


def test_dropout_of_0_is_no_mistake() -> None:
    params, _ = symmetry_of(task(Mistaken(nn.Dropout(0.0))))
    assert next(iter(params)) == "first.weight"

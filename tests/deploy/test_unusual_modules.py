"""A packaged optimizer trains modules that are unlike those it was trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from learned_opt import LearnedOptimizer
from learned_opt.deploy.parity import example_shapes
from learned_opt.symmetry import infer_permutation_spec

INPUTS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """Two branches of unequal width, joined; it makes zeros itself and has empty parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 5)
        self.b = nn.Linear(4, 7)
        self.out = nn.Linear(13, 2)
        self.empty = nn.Parameter(torch.zeros(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(x.shape[0], 1)
        hidden = torch.cat([torch.relu(self.a(x)), torch.tanh(self.b(x)), zeros], -1)
        return self.out(hidden) + self.empty.sum(0)


def directions() -> nn.Module:
    class Directions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
            self.out = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.cell(x[:, None])[0][:, -1])

    return Directions()


@pytest.mark.parametrize("make", [Joined, directions])
def test_packaged_optimizer_trains_it(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", model, (INPUTS,))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(INPUTS) - INPUTS[:, :2]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    spec = infer_permutation_spec(model, INPUTS)
    assert spec.cuts
    assert set(example_shapes(spec)) == {name for name, _ in model.named_parameters()}
    spec.sizes({name: torch.zeros(shape) for name, shape in example_shapes(spec).items()})

    # what is saved can be read again, for the same module
    optimizer.save_pretrained(tmp_path / "saved")
    again = LearnedOptimizer.from_pretrained(tmp_path / "saved", model, (INPUTS,))
    assert again.meta_optimizer.spec == optimizer.meta_optimizer.spec

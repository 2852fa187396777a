"""Train a network that predicts later weights, on trajectories of a zoo.

Legend: M networks of a split, T snapshots of each, S = 5 snapshots that a prediction reads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.evaluation.prediction.zoo import Zoo
from learned_opt.optimizers.nowcast.networks import FARTHEST, NUM_SNAPSHOTS, EntryNetwork
from learned_opt.optimizers.nowcast.prediction import (
    TINY,
    EntryPrediction,
    LinearExtrapolation,
    Predictor,
    deviation_of,
)
from learned_opt.optimizers.nowcast.roles import rank_role

MARKS = (1, 5, 10, 20, 40)  # snapshots ahead at which a table is made


@dataclass(frozen=True)
class ForecastSettings:
    """How the network is trained.

    Args:
        hidden_size: of the network.
        lr: learning rate of AdamW at the start; it falls along half a cosine.
        weight_decay: of AdamW.
        clip: largest norm of a gradient.
        steps: of training.
        batch_size: networks, each with a window of its trajectory.
        seed: of initial weights and windows.

    Raises:
        ValueError: a value is not positive, or ``weight_decay`` is negative.

    Source: code of Knyazev et al. 2025 (arXiv 2409.04434).
    """

    hidden_size: int = 32
    lr: float = 3e-3
    weight_decay: float = 1e-2
    clip: float = 5.0
    steps: int = 2000
    batch_size: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "lr", "clip", "steps", "batch_size"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}.")


def train(zoo: Zoo, settings: ForecastSettings) -> EntryNetwork:
    """Train on windows of the training split: L1 of scaled weights.

    Args:
        zoo: of trajectories, leaves ``(M, T, *shape)``.
        settings: see there.

    Raises:
        ValueError: trajectories are too short to learn from, or none is whole.
    """
    trajectories, _ = zoo.select("train")
    num_snapshots = _length(trajectories)
    num_networks = len(next(iter(trajectories.values())))
    torch.manual_seed(settings.seed)
    network = EntryNetwork(settings.hidden_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    predictor = EntryPrediction(network, _roles(trajectories))

    source = generator(settings.seed, "forecast")
    for _ in range(settings.steps):
        ahead = _draw(1, min(FARTHEST, num_snapshots - NUM_SNAPSHOTS), source)
        first = _draw(0, num_snapshots - NUM_SNAPSHOTS - ahead, source)
        rows = torch.randint(num_networks, (settings.batch_size,), generator=source)
        batch = {name: leaf[rows] for name, leaf in trajectories.items()}

        optimizer.zero_grad()
        _errors(predictor, batch, _Window(first, ahead), steps=ahead).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False)


@torch.no_grad()
def heldout_errors(zoo: Zoo, network: EntryNetwork) -> list[dict[str, float]]:
    """Mean L1 of scaled weights on the test split, by snapshots ahead.

    Args:
        zoo: of trajectories.
        network: trained.

    Returns:
        list[dict[str, float]]: rows with ``ahead``, and the errors of ``unchanged`` weights, of a
        ``line`` and of the ``network``.
    """
    trajectories, _ = zoo.select("test")
    num_snapshots = _length(trajectories)
    line = LinearExtrapolation()
    learned = EntryPrediction(network, _roles(trajectories))

    rows = []
    for ahead in MARKS:
        starts = range(num_snapshots - NUM_SNAPSHOTS - ahead + 1)
        if not starts:
            break
        errors: dict[str, list[Tensor]] = {"unchanged": [], "line": [], "network": []}
        for first in starts:
            window = _Window(first, ahead)
            errors["unchanged"].append(_errors(line, trajectories, window, steps=0))
            errors["line"].append(_errors(line, trajectories, window, steps=ahead))
            errors["network"].append(_errors(learned, trajectories, window, steps=ahead))
        means = {name: torch.cat(parts).mean().item() for name, parts in errors.items()}
        rows.append({"ahead": ahead, **means})
    return rows


class _Window(NamedTuple):
    """Five snapshots of a trajectory, and the one that is to be predicted.

    Args:
        first: number of the first of the five.
        ahead: of the last of the five.
    """

    first: int
    ahead: int


def _errors(predictor: Predictor, trajectories: Tree, window: _Window, steps: int) -> Tensor:
    """Mean L1 of scaled weights of each network, ``(M,)``."""
    last = window.first + NUM_SNAPSHOTS

    def of_network(trajectory: Tree) -> Tensor:
        seen = {name: leaf[window.first : last] for name, leaf in trajectory.items()}
        predicted = predictor.predict(seen, steps)
        gaps = []
        for name, leaf in trajectory.items():
            true = leaf[last - 1 + window.ahead]
            scale = deviation_of(seen[name]) + TINY
            gaps.append(((predicted[name] - true) / scale).abs().flatten())
        return torch.cat(gaps).mean()

    return vmap(of_network)(trajectories)


def _length(trajectories: Tree) -> int:
    """Snapshots T of each network.

    Raises:
        ValueError: there is no network, or there are too few snapshots.
    """
    leaf = next(iter(trajectories.values()))
    if not len(leaf):
        raise ValueError("no network of the zoo stayed finite in a split that is needed.")
    if leaf.ndim < 2 or leaf.shape[1] <= NUM_SNAPSHOTS:
        raise ValueError(
            f"trajectories must have at least {NUM_SNAPSHOTS + 1} snapshots; zoo=trajectories "
            "keeps them."
        )
    return leaf.shape[1]


def _roles(trajectories: Tree) -> dict[str, tuple[int, ...]]:
    return {name: (rank_role(leaf.ndim - 2),) for name, leaf in trajectories.items()}


def _draw(low: int, high: int, source: torch.Generator) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=source))

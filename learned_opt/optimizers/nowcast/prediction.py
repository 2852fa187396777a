"""Later weights of a model from snapshots of its training: scaling, and three predictors.

Legend: S snapshots, E edges or entries.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.checks import check_at_least
from learned_opt.core.tree import Tree
from learned_opt.optimizers.nowcast.networks import NUM_SNAPSHOTS, EntryNetwork, GraphNetwork
from learned_opt.optimizers.nowcast.roles import Roles
from learned_opt.optimizers.nowcast.weight_graph import WeightGraph

TINY = 1e-6  # added to deviations that are divided by


class Predictor(ABC):
    """Predicts parameters from snapshots of them that lie equally far apart."""

    @abstractmethod
    def predict(self, snapshots: Tree, steps: int | Tensor) -> Tree:
        """The parameters ``(*shape,)`` that many snapshots ahead.

        Args:
            snapshots: parameters, the oldest first, ``(S, *shape)``.
            steps: k, a number or a scalar.
        """


class LinearExtrapolation(Predictor):
    """The line through the first and the last snapshot, gone on."""

    @override
    def predict(self, snapshots: Tree, steps: int | Tensor) -> Tree:
        predicted = {}
        for name, leaf in snapshots.items():
            slope = (leaf[-1] - leaf[0]) / (len(leaf) - 1)
            predicted[name] = leaf[-1] + steps * slope
        return predicted


class EntryPrediction(Predictor):
    """By the network that reads every weight by itself.

    Args:
        network: with its weights.
        roles: of the parameters.
    """

    def __init__(self, network: EntryNetwork, roles: Mapping[str, Roles]) -> None:
        self.network = network
        self.roles = roles

    @override
    def predict(self, snapshots: Tree, steps: int | Tensor) -> Tree:
        predicted = {}
        for name, leaf in snapshots.items():
            if not leaf.numel():
                predicted[name] = leaf[-1]
                continue
            scale = _Scale(leaf)
            rows = scale.scaled(leaf).reshape(len(leaf), -1).T  # (E, S)
            types = self._types(name, leaf[0])
            moved = self.network(rows, types, steps).reshape(leaf.shape[1:])
            predicted[name] = scale.unscaled(moved)
        return predicted

    def _types(self, name: str, like: Tensor) -> Tensor:
        roles = torch.tensor(self.roles[name], device=like.device)
        return roles.repeat_interleave(like.numel() // len(roles))


class GraphPrediction(Predictor):
    """By the network that reads the graph of all weights.

    Args:
        network: with its weights.
        graph: of the parameters.
        coordinates: of the nodes ``(N, 8)``; None for 0, see ``GraphNetwork``.
    """

    def __init__(
        self, network: GraphNetwork, graph: WeightGraph, coordinates: Tensor | None = None
    ) -> None:
        self.network = network
        self.graph = graph
        self.coordinates = coordinates

    @override
    def predict(self, snapshots: Tree, steps: int | Tensor) -> Tree:
        scales = {name: _Scale(leaf) for name, leaf in snapshots.items()}
        scaled = {name: scales[name].scaled(leaf) for name, leaf in snapshots.items()}
        attributes = self.graph.attributes(scaled)
        values = self.network(attributes, self.graph, steps, self.coordinates)

        predicted = {}
        for name, move in self.graph.parameters(values).items():
            predicted[name] = scales[name].unscaled(scaled[name][-1] + move)
        return predicted


def deviation_of(snapshots: Tensor) -> Tensor:
    """Standard deviation over all entries and snapshots of a tensor; 0 of a single number."""
    return snapshots.std() if snapshots.numel() > 1 else snapshots.new_zeros(())


def check_period(period: int) -> None:
    """Check the number of steps between two predictions.

    Raises:
        ValueError: snapshots cannot divide it into equal parts.
    """
    check_at_least(NUM_SNAPSHOTS, period=period)
    if period % NUM_SNAPSHOTS:
        raise ValueError(f"period must be a multiple of {NUM_SNAPSHOTS}, got {period}.")


class _Scale:
    """Mean and deviation of a tensor over all entries and snapshots."""

    def __init__(self, snapshots: Tensor) -> None:
        self.mean = snapshots.mean()
        self.deviation = deviation_of(snapshots)

    def scaled(self, values: Tensor) -> Tensor:
        return (values - self.mean) / (self.deviation + TINY)

    def unscaled(self, values: Tensor) -> Tensor:
        return values * self.deviation + self.mean

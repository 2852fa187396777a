"""Nowcasting around any optimizer of torch: from time to time weights are predicted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.checks import check_at_least
from learned_opt.deploy.inputs import unwrap
from learned_opt.deploy.nowcast_files import load_network
from learned_opt.optimizers.nowcast.networks import (
    MAX_POSITIONS,
    NUM_SNAPSHOTS,
    GraphNetwork,
)
from learned_opt.optimizers.nowcast.optimizer import steps_ahead
from learned_opt.optimizers.nowcast.prediction import (
    EntryPrediction,
    GraphPrediction,
    LinearExtrapolation,
    Predictor,
    check_period,
)
from learned_opt.optimizers.nowcast.roles import reads_first_axis, roles_of
from learned_opt.optimizers.nowcast.weight_graph import WeightGraph
from learned_opt.symmetry.infer import infer_permutation_spec

LINEAR = "linear"  # in the place of a file: no network, but a line


class Nowcaster(torch.optim.Optimizer):
    """Steps as another optimizer does, and at every ``period``-th step jumps to predicted weights.

    Five snapshots of the weights are kept between two predictions. The first predictions look 40
    snapshots ahead, the last one 1. A step that predicts needs no gradient, and leaves the state of
    the other optimizer as it is; so are buffers, such as the statistics of batch norm. Learning
    rates and their schedules are those of the other optimizer: param groups are shared.

    Args:
        optimizer: the other one.
        model: whose parameters it trains.
        weights: safetensors file of a network: that of single weights (``nino_mlp_h32``) or that of
            the graph of all weights (``nino_no_posw``), see its source; or ``linear`` for straight
            lines through the snapshots, the control.
        period: steps from one prediction to the next, a multiple of 5.
        horizon: steps of the whole training; the predictions are ``horizon // period``.
        example_inputs: what ``model(*example_inputs)`` accepts; needed for the graph.

    Raises:
        ValueError: a value out of its range, a damaged file, parameters that are not of the model,
            or a model that the network cannot read.

    Source: Knyazev et al. 2025 (arXiv 2409.04434) and the authors' code. Coordinates of neurons are
    0, so that predictions permute as neurons do; nodes come from the inferred permutation spec.

    >>> model = nn.Linear(2, 1)
    >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> optimizer = Nowcaster(base, model, weights="linear", period=5, horizon=10)
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     (model(torch.ones(1, 2)) - 1).square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.predictions, optimizer.schedule
    (2, [40, 1])
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        weights: str | Path,
        period: int = 1000,
        horizon: int = 10_000,
        example_inputs: Sequence[Tensor] | None = None,
    ) -> None:
        check_period(period)
        check_at_least(1, horizon=horizon)

        self.optimizer = optimizer
        self.period = period
        self.horizon = horizon
        count = horizon // period
        self.schedule = steps_ahead(torch.arange(1, count + 1), torch.tensor(count)).tolist()
        self.model = unwrap(model)
        self.calls = 0
        self.predictions = 0
        self.snapshots: list[dict[str, Tensor]] = []
        self._check_parameters()
        self.predictor = _predictor(weights, self.model, example_inputs)
        # the very groups of the other optimizer, so that a schedule of either acts on both
        super().__init__(optimizer.param_groups, optimizer.defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of the other optimizer, or a prediction.

        Args:
            closure: computes the loss and its gradients, and returns the loss.

        Returns:
            The loss, if there was a closure.
        """
        self.calls += 1
        is_due = self.calls % (self.period // NUM_SNAPSHOTS) == 0
        if is_due and self.predictions < len(self.schedule):
            params = self._parameters()
            self.snapshots.append({name: param.clone() for name, param in params.items()})

        if len(self.snapshots) < NUM_SNAPSHOTS:
            return self.optimizer.step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._predict()
        return loss

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        # torch's constructor hands over the groups of the other optimizer
        if any(param_group is group for group in self.optimizer.param_groups):
            super().add_param_group(param_group)
            return
        raise ValueError("a Nowcaster takes no new param groups: it knows the model as it was.")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "calls": self.calls,
            "predictions": self.predictions,
            "snapshots": self.snapshots,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        expected = {"optimizer", "calls", "predictions", "snapshots"}
        if set(state_dict) != expected:
            raise ValueError(
                f"the state_dict of a Nowcaster must hold {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted(state_dict))}."
            )
        params = self._parameters()
        snapshots = []
        for snapshot in state_dict["snapshots"]:
            shapes = {name: leaf.shape for name, leaf in snapshot.items()}
            if shapes != {name: param.shape for name, param in params.items()}:
                raise ValueError("the snapshots of the state_dict are of another model.")
            snapshots.append({name: snapshot[name].to(param) for name, param in params.items()})

        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.param_groups = self.optimizer.param_groups  # which loading has replaced
        self.calls = state_dict["calls"]
        self.predictions = state_dict["predictions"]
        self.snapshots = snapshots

    def _parameters(self) -> dict[str, Tensor]:
        return {name: param.detach() for name, param in self.model.named_parameters()}

    def _predict(self) -> None:
        """Move the parameters that the other optimizer trains, and drop the snapshots."""
        steps = self.schedule[self.predictions]
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        stacked = {}
        for name in self.snapshots[0]:
            leaves = [snapshot[name].float() for snapshot in self.snapshots]
            stacked[name] = torch.stack(leaves)

        predicted = self.predictor.predict(stacked, steps)
        for name, param in self.model.named_parameters():
            if id(param) in trained and param.requires_grad:
                param.copy_(predicted[name])
        self.snapshots = []
        self.predictions += 1

    def _check_parameters(self) -> None:
        known = {id(param) for param in self.model.parameters()}
        for number, group in enumerate(self.optimizer.param_groups):
            if not all(id(param) in known for param in group["params"]):
                raise ValueError(
                    f"param group {number} of the optimizer must hold parameters of the model, "
                    "got others."
                )
        for name, param in self.model.named_parameters():
            if not param.is_floating_point():
                raise ValueError(f"parameter {name} must hold real numbers, got {param.dtype}.")


def _predictor(
    weights: str | Path, model: nn.Module, example_inputs: Sequence[Tensor] | None
) -> Predictor:
    if weights == LINEAR:
        return LinearExtrapolation()
    device = next(model.parameters()).device
    network = load_network(Path(weights).expanduser()).to(device)
    roles = roles_of(model)
    if not isinstance(network, GraphNetwork):
        return EntryPrediction(network, roles)

    if example_inputs is None:
        raise ValueError(
            "the network of the graph reads the symmetries of the model: give example_inputs, a "
            "tuple of tensors that the model accepts."
        )
    spec = infer_permutation_spec(model, *example_inputs)
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    graph = WeightGraph(spec, shapes, roles, reads_first_axis(model)).to(device)
    for tensor, part in graph.parts.items():
        if part.positions > MAX_POSITIONS:
            raise ValueError(
                f"kernels must have at most {MAX_POSITIONS} positions for this network, "
                f"{tensor} has {part.positions}; that of single weights reads any."
            )
    return GraphPrediction(network, graph)

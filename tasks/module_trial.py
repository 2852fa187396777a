"""What is wrong with a module, its loss or its data, in one sentence and before anything runs."""

import copy
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.keyed.mode import KeyedDraws
from tasks.module_data import Columns
from tasks.module_losses import Measured

Objective = Callable[[nn.Module], nn.Module]
BROADCAST = "Using a target size"  # of torch's warning about a loss that compares two shapes


class Trial:
    """Runs a copy of a module on a batch, in training mode, and looks at what it does.

    Args:
        name: of the task, for messages.
        module: it is not changed.
        objective: makes a module of the loss from a module.

    Attributes:
        num_draws: how often the forward pass drew at random.
    """

    def __init__(self, name: str, module: nn.Module, objective: Objective) -> None:
        self.kind = type(module).__name__
        self.name = name
        self.copy = copy.deepcopy(module).train()
        self.objective = objective(self.copy)
        self.num_draws = 0

        self.entered: list[str] = []  # layers that the forward pass is in, the innermost last
        for layer_name, layer in self.copy.named_modules():
            layer.register_forward_pre_hook(partial(self._enter, layer_name))
            layer.register_forward_hook(self._leave)

    def run(self, columns: Columns) -> None:
        """Refuse what inner training cannot run.

        Raises:
            ValueError: the forward pass or the loss fails, is no scalar, does not depend on the
                parameters, changes a buffer, or is not the same for the same arguments.
        """
        buffers = dict(self.copy.named_buffers())
        versions = {name: buffer._version for name, buffer in buffers.items()}
        states = _global_states()

        loss, figures = self._measure(columns)
        self._check_loss(loss, figures)

        for name, buffer in self.copy.named_buffers():
            if buffer is not buffers.get(name) or buffer._version != versions[name]:
                raise ValueError(
                    f"{self._layer_of(name)} changes its buffer {name!r} in a forward pass, but "
                    "chains share buffers; make it part of what forward computes, or, in a norm, "
                    "use GroupNorm, LayerNorm or track_running_stats=False."
                )

        again, _ = self._measure(columns)
        if _global_states() != states or not torch.equal(loss, again):
            raise ValueError(
                f"module {self.kind} or its loss draws at random on its own or remembers earlier "
                "calls: it must be the same for the same arguments; use dropout, torch.rand_like "
                "or torch.randn_like, whose draws are keyed, and no random or numpy."
            )

    def _measure(self, columns: Columns) -> Measured:
        self.entered.clear()
        mode = KeyedDraws(torch.zeros((), dtype=torch.int64))
        try:
            with warnings.catch_warnings(), mode, torch.enable_grad():
                warnings.filterwarnings("error", message=BROADCAST)
                measured = self.objective(columns, measure=True)
        except Exception as error:
            raise ValueError(self._reason(error, columns)) from error

        self.num_draws = mode.draws.num_draws
        return measured

    def _enter(self, layer_name: str, *_: Any) -> None:
        self.entered.append(layer_name)

    def _leave(self, *_: Any) -> None:
        self.entered.pop()

    def _reason(self, error: Exception, columns: Columns) -> str:
        where = f"layer {self.entered[-1]!r} of " if self.entered and self.entered[-1] else ""
        # outside of all layers it is the loss that fails
        kind = f"module {self.kind}" if self.entered else "its loss"
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__

        ranges = []
        for name, column in columns.items():
            if isinstance(error, IndexError) and not column.is_floating_point():
                ranges.append(f"column {name!r} has {column.min()} to {column.max()}")
        hint = f"; {', '.join(ranges)} in these rows" if ranges else ""
        return f"task {self.name!r} cannot train: {where}{kind} fails: {reason}{hint}."

    def _check_loss(self, loss: Any, figures: dict[str, Tensor]) -> None:
        if not isinstance(loss, Tensor) or loss.shape != ():
            result = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ValueError(
                f"the loss of task {self.name!r} must be a scalar tensor, got {result:.60}; take "
                "its mean."
            )
        if loss.grad_fn is None:
            raise ValueError(
                f"the loss of task {self.name!r} does not depend on the parameters of module "
                f"{self.kind}; leave out detach, no_grad and item."
            )
        for name, figure in figures.items():
            if figure.shape != ():
                raise ValueError(
                    f"figure {name!r} of task {self.name!r} must be a scalar, got shape "
                    f"{tuple(figure.shape)}."
                )

    def _layer_of(self, buffer: str) -> str:
        layer_name, _, _ = buffer.rpartition(".")
        if not layer_name:
            return f"module {self.kind}"
        layer = self.copy.get_submodule(layer_name)
        return f"layer {layer_name!r} ({type(layer).__name__}) of module {self.kind}"


def _global_states() -> tuple[Any, ...]:
    """The states of all global generators of random numbers, to compare."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().tolist(), kind, list(keys), rest, random.getstate()

"""Losses that come ready, and modules that compute a loss of columns.

Legend: B batch, L length, V vocabulary, C classes.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from tasks.module_data import Columns
from tasks.module_roles import Roles, as_batch

Loss = Callable[..., Tensor]
Figures = Mapping[str, Callable[..., Tensor]]
Measured = tuple[Tensor, dict[str, Tensor]]  # the loss, and figures where they are asked for


def sequence_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over batch and positions, in nats.

    Args:
        outputs: logits ``(B, L, V)``.
        targets: tokens ``(B, L)`` int64; positions of -100 do not count.

    >>> sequence_cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
    tensor(1.3863)
    """
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def next_token_cross_entropy(outputs: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of every next token, for a causal model whose inputs are its targets.

    Args:
        outputs: logits ``(B, L, V)`` of the tokens that follow.
        tokens: ``(B, L)`` int64, as the model reads them.
    """
    return sequence_cross_entropy(outputs[:, :-1], tokens[:, 1:])


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of labels ``(B,)`` whose class has the largest of the outputs ``(B, C)``.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    return (outputs.argmax(-1) == labels).float().mean()


class Supervised(nn.Module):
    """A module with a loss ``(outputs, targets) -> scalar``.

    Args:
        module: what is trained.
        roles: which columns are inputs and targets.
        loss: the loss.
        output: name or number of the part of the module's outputs that the loss reads; None for
            all of them.
        figures: functions of the same arguments; None for the accuracy, where targets are labels.
    """

    def __init__(
        self,
        module: nn.Module,
        roles: Roles,
        loss: Loss,
        output: str | int | None,
        figures: Figures | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.roles = roles
        self.loss = loss
        self.output = output
        self.figures = figures

    @override
    def forward(self, columns: Columns, measure: bool = False) -> Measured:
        positional, keyword = self.roles.arguments(columns)
        outputs = _part(self.module(*positional, **keyword), self.output)
        targets = self.roles.compared(columns)

        figures = self.figures
        if figures is None:
            figures = {"accuracy": accuracy} if _are_labels(outputs, targets) else {}
        return self.loss(outputs, targets), _measured(figures, measure, outputs, targets)


class OfBatch(nn.Module):
    """A module with a loss ``(module, batch) -> scalar``.

    Args:
        module: what is trained.
        loss: the loss.
        figures: functions of the same arguments.
    """

    def __init__(self, module: nn.Module, loss: Loss, figures: Figures | None) -> None:
        super().__init__()
        self.module = module
        self.loss = loss
        self.figures = figures or {}

    @override
    def forward(self, columns: Columns, measure: bool = False) -> Measured:
        batch = as_batch(columns)
        loss = self.loss(self.module, batch)
        return loss, _measured(self.figures, measure, self.module, batch)


def _measured(figures: Figures, measure: bool, *arguments: Any) -> dict[str, Tensor]:
    if not measure:
        return {}
    return {name: torch.as_tensor(figure(*arguments)) for name, figure in figures.items()}


def _part(outputs: Any, name: str | int | None) -> Any:
    """The part of a module's outputs: an entry, or an attribute.

    Raises:
        ValueError: there is none of that name.
    """
    if name is None:
        return outputs
    by_key = isinstance(outputs, Mapping) or not isinstance(name, str)
    try:
        return operator.getitem(outputs, name) if by_key else getattr(outputs, str(name))
    except (AttributeError, IndexError, KeyError) as error:
        parts = f", which has: {', '.join(outputs)}" if isinstance(outputs, Mapping) else ""
        raise ValueError(
            f"output {name!r} is no part of the {type(outputs).__name__} that the module "
            f"returns{parts}"
        ) from error


def _are_labels(outputs: Any, targets: Any) -> bool:
    """Whether targets are classes, of which the outputs have one column each."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    is_table = outputs.ndim == 2 and outputs.is_floating_point()
    return is_table and targets.ndim == 1 and targets.dtype == torch.int64

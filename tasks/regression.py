"""Regression on a table: any network on columns of numbers.

Legend: n rows, d features, t targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tasks.module import ModuleTask
from tasks.module_data import DataSource, InMemory, joined
from tasks.module_losses import Loss
from tasks.module_reading import TEST, read
from tasks.module_roles import Roles
from tasks.module_splits import Split, train_and_test
from tasks.networks.initialised import initialised

Names = str | Sequence[str]


def regression(
    name: str,
    network: Callable[..., nn.Module],
    data: Any,
    targets: Names,
    inputs: Names | None = None,
    loss: Loss | None = None,
    test: Any = None,
    test_fraction: float | None = None,
    valid_fraction: float = 0.0,
    batch_size: int = 128,
) -> ModuleTask:
    """A network that predicts columns of a table from other columns.

    Every column, targets too, is shifted and scaled to mean 0 and standard deviation 1 over the
    training rows, those of ``valid`` included; held-out rows are shifted and scaled by the same
    numbers. A mean squared error of 1 is therefore that of the best constant. A column of inputs
    that never changes becomes 0.

    Args:
        name: of the task in reports.
        network: constructor ``((number of inputs,), number of targets) -> nn.Module``.
        data: a table whose columns have names: the path of a CSV or parquet file, the id of a
            data set on the hub, a dict of tensors, a ``datasets.Dataset``; see ``ModuleTask``.
        targets: column or columns that are predicted.
        inputs: column or columns that are read; None for all others.
        loss: ``(outputs, targets) -> scalar``, of scaled targets; the mean squared error if None.
        test: held-out data, of a kind as ``data``.
        test_fraction: share of the data that is held out; see ``ModuleTask``.
        valid_fraction: share of the training data that is kept for ``valid``.
        batch_size: rows in a batch, drawn with replacement.

    Returns:
        ModuleTask: where there is one target, its figures have the mean absolute error in the
        target's unit.

    Raises:
        ValueError: a column is missing, holds no numbers or is both input and target, a target
            never changes, or see ``ModuleTask``.
        FileNotFoundError: there is no such file.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.

    >>> from tasks.networks.mlp import MLP
    >>> table = {"x": torch.arange(10.0), "y": 2 * torch.arange(10.0)}
    >>> task = regression("doubled", MLP, table, targets="y")
    >>> task.num_train, task.describe()["num_test"]
    (8, 2)
    """
    target_names = _listed(targets)
    input_names = [] if inputs is None else _listed(inputs)
    sources = read(data, [*input_names, *target_names] if input_names else None)
    if test is None and test_fraction is None:
        test = sources.get(TEST)

    table = _in_memory(sources["train"])
    input_names = input_names or [column for column in table.columns if column not in target_names]
    _check_names(input_names, target_names, table)

    roles = Roles(input_names, target_names)
    train, heldout = train_and_test(table, test, test_fraction, roles, is_supervised=False)
    scaled_inputs = _scaling(train, input_names)
    scaled_targets = _scaling(train, target_names)
    if not scaled_targets.deviation.all():
        raise ValueError(
            f"targets must not be the same in every training row, as one of "
            f"{', '.join(target_names)} is."
        )

    shapes = (len(scaled_inputs.mean),), len(scaled_targets.mean)
    figures = {}
    if shapes[1] == 1:
        figures["mean_absolute_error"] = partial(_absolute_error, scaled_targets.deviation.item())
    return ModuleTask(
        partial(initialised, network, *shapes),
        nn.MSELoss() if loss is None else loss,
        _scaled(train, scaled_inputs, scaled_targets),
        test=_scaled(heldout, scaled_inputs, scaled_targets),
        valid_fraction=valid_fraction,
        batch_size=batch_size,
        figures=figures,
        name=name,
    )


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of columns.

    Args:
        names: of the columns, joined in this order.
        mean: ``(d,)``.
        deviation: ``(d,)``, at least 0.
    """

    names: list[str]
    mean: Tensor
    deviation: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Shift and scale ``(n, d)``; what never changes is only shifted."""
        return (features - self.mean) / self.deviation.where(self.deviation > 0, 1.0)


def _scaling(train: Split, names: list[str]) -> Scaling:
    features = joined(train.gather(train.rows), names).double()  # (n, d)
    deviation, mean = torch.std_mean(features, 0, correction=0)

    # rounding alone is no change
    deviation = deviation.where((features != features[0]).any(0), 0.0)
    dtype = torch.get_default_dtype()
    return Scaling(names, mean.to(dtype), deviation.to(dtype))


def _scaled(split: Split, inputs: Scaling, targets: Scaling) -> InMemory:
    """The rows of a split as a table of inputs and targets."""
    columns = split.gather(split.rows)
    features = inputs(joined(columns, inputs.names))  # (n, d)
    predicted = targets(joined(columns, targets.names))  # (n, t)
    return InMemory(split.source.name, {"0": features, "1": predicted})


def _absolute_error(unit: float, outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean() * unit


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else [str(name) for name in names]


def _in_memory(source: DataSource) -> InMemory:
    """The table itself.

    Raises:
        ValueError: it lies elsewhere.
    """
    if not isinstance(source, InMemory):
        raise ValueError(
            f"data of a regression must lie in memory, to be scaled, got {type(source).__name__}; "
            "scale the columns yourself and use tasks.ModuleTask."
        )
    return source


def _check_names(inputs: list[str], targets: list[str], table: InMemory) -> None:
    for name in [*inputs, *targets]:
        if name not in table.columns:
            raise ValueError(
                f"data lack the column {name!r}; they have: {', '.join(table.columns)}."
            )

    both = [name for name in inputs if name in targets]
    if both:
        raise ValueError(f"a column must not be both input and target, as {', '.join(both)} is.")
    if not inputs or not targets:
        raise ValueError(
            f"a table must have columns of inputs and of targets, got inputs {inputs} and targets "
            f"{targets}."
        )

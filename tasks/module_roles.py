"""Which columns a module reads and which ones its loss compares the outputs with."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tasks.module_data import Columns, joined

Names = str | Sequence[str]  # a column, or several that are joined as features
Role = Names | Mapping[str, Names] | None

JOINT = " | "


class Roles:
    """Inputs and targets of a supervised task.

    Columns of a tuple are called "0", "1", ... Without names, its last column is the target and
    all others are inputs; where there is but one, it is both.

    Args:
        inputs: a column; a list of columns, which are joined as features ``(n, d)``; or a mapping
            from the module's argument to either.
        targets: the same, for what the loss gets; None for the inputs themselves where inputs are
            named.

    Raises:
        ValueError: inputs are missing.

    >>> roles = Roles(inputs=["a", "b"], targets="y")
    >>> roles.names
    ['a', 'b', 'y']
    """

    def __init__(self, inputs: Role = None, targets: Role = None) -> None:
        self.inputs = _plain(inputs)
        self.targets = _plain(targets)
        if inputs is None and targets is not None:
            raise ValueError(f"targets name the columns {targets}; name those of inputs too.")

    @property
    def names(self) -> list[str] | None:
        """The columns that are needed; None for all."""
        if self.inputs is None:
            return None

        names: list[str] = []
        for role in (self.inputs, self.targets):
            for part in _parts(role):
                names += [part] if isinstance(part, str) else part
        return list(dict.fromkeys(names))

    def prepare(self, columns: Columns) -> Columns:
        """Join what is joined, once, before all training.

        Raises:
            ValueError: columns have names, but inputs have none.
        """
        if self.inputs is None:
            if not _are_numbered(columns):
                raise ValueError(
                    f"inputs and targets must name columns of data, which are: "
                    f"{', '.join(columns)}."
                )
            return columns

        prepared: Columns = {}
        for role in (self.inputs, self.targets):
            for part in _parts(role):
                key = _key(part)
                prepared[key] = columns[part] if isinstance(part, str) else joined(columns, part)
        return prepared

    def arguments(self, columns: Columns) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Positional and keyword arguments of the module's forward."""
        if self.inputs is None:
            values = list(columns.values())
            return values[:-1] or values, {}
        if isinstance(self.inputs, dict):
            return [], {name: _column(columns, part) for name, part in self.inputs.items()}
        return [_column(columns, self.inputs)], {}

    def compared(self, columns: Columns) -> Any:
        """What the loss gets as targets: a tensor, or a dict of tensors."""
        if self.inputs is None:
            return list(columns.values())[-1]

        targets = self.inputs if self.targets is None else self.targets
        if isinstance(targets, dict):
            return {name: _column(columns, part) for name, part in targets.items()}
        return _column(columns, targets)


def as_batch(columns: Columns) -> Any:
    """Columns as a data loader would give them: a tuple, or a dict where they have names.

    >>> import torch
    >>> as_batch({"0": torch.zeros(1), "1": torch.ones(1)})
    (tensor([0.]), tensor([1.]))
    """
    return tuple(columns.values()) if _are_numbered(columns) else dict(columns)


def _are_numbered(columns: Columns) -> bool:
    return list(columns) == [str(number) for number in range(len(columns))]


def _plain(role: Any) -> Any:
    """Lists and dicts of Python, whatever kind of sequence or mapping a config has."""
    if role is None or isinstance(role, str):
        return role
    if isinstance(role, Mapping):
        return {str(name): _plain(part) for name, part in role.items()}
    return [str(name) for name in role]


def _parts(role: Any) -> list[Any]:
    """The columns and joined columns of a role."""
    if role is None:
        return []
    return list(role.values()) if isinstance(role, dict) else [role]


def _column(columns: Columns, part: Any) -> Tensor:
    """A column, or several that are joined, in advance or here."""
    key = _key(part)
    return columns[key] if key in columns else joined(columns, part)


def _key(part: Any) -> str:
    """What a column is called after joining."""
    return part if isinstance(part, str) else JOINT.join(part)

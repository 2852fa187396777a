"""Which tensor moves along which direction, by its shape, its role and what users name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from learned_opt.symmetry.roles import is_table
from learned_opt.symmetry.spec import PermutationSpec

RULES = ("orthogonal", "adam")
NO_RULES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class TensorRules:
    """The direction of each tensor.

    Args:
        orthogonal: matrices take the orthogonal direction in the place of Adam's. A matrix is any
            tensor of two axes or more, further axes counted as the second.
        by_role: but for those whose rows are picked by index: a batch reads few rows of them.
        named: name of a tensor -> its direction, over all others.

    Raises:
        ValueError: a flag is neither true nor false, or a direction does not exist.
    """

    orthogonal: bool = False
    by_role: bool = False
    named: Mapping[str, str] = field(default_factory=lambda: NO_RULES)

    def __post_init__(self) -> None:
        # a read-only view of a dict could not be copied along with its optimizer
        object.__setattr__(self, "named", dict(self.named))
        for name in ("orthogonal", "by_role"):
            if (flag := getattr(self, name)) not in (True, False):
                raise ValueError(f"{name} must be true or false, got {flag!r}.")
        for name, rule in self.named.items():
            if rule not in RULES:
                rules = ", ".join(RULES)
                raise ValueError(f"the rule of {name} must be one of {rules}, got {rule!r}.")

    def with_named(self, named: Mapping[str, str]) -> "TensorRules":
        """The same rules, but for the tensors that are named."""
        return replace(self, named={**self.named, **named})

    def rule(self, name: str, num_axes: int, spec: PermutationSpec) -> str:
        """The direction of a tensor.

        Args:
            name: of the tensor.
            num_axes: of the tensor.
            spec: of its weight space.

        Raises:
            ValueError: a vector or scalar is named with the orthogonal direction.
        """
        chosen = self.named.get(name)
        if chosen == "orthogonal" and num_axes < 2:
            raise ValueError(
                f"the rule orthogonal is for tensors of two axes or more, {name} has {num_axes}."
            )
        if chosen is not None:
            return chosen

        table = self.by_role and is_table(spec, name)
        return "orthogonal" if self.orthogonal and num_axes > 1 and not table else "adam"

"""What all layers on weight spaces have in common."""

from copy import copy
from typing import Self, TypeVar

from torch import nn

from learned_opt.symmetry.spec import PermutationSpec

M = TypeVar("M", bound=nn.Module)


class Layer(nn.Module):
    """A layer built for one spec, constructed from ``(spec, in_channels, out_channels)``."""

    @property
    def fits_every_spec(self) -> bool:
        """Whether no parameter belongs to the spec."""
        return False

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same parameters on another spec, in a new module; this one stays as it is.

        Raises:
            ValueError: the layer does not fit every spec.
        """
        raise ValueError(
            f"theta of {type(self).__name__} belongs to one weight space; it cannot move to another spec."
        )


def with_modules(module: M, **modules: nn.Module) -> M:
    """A copy that shares parameters and submodules but for those given."""
    other = copy(module)
    other._modules = module._modules | modules
    return other

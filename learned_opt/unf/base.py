"""The contract of layers on weight spaces."""

from collections.abc import Callable
from copy import copy
from typing import Self, TypeVar

from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.coefficients import Coefficients

M = TypeVar("M", bound=nn.Module)


class Layer(nn.Module):
    """A layer built for one spec, constructed from ``(spec, in_channels, out_channels)``.

    It maps a dict ``name -> Tensor[*shape, C]`` (C channels, last) and an optional vector of
    *shared* channels, which are the same for every entry of every tensor (a time code, say).
    Shared channels enter as a bias computed once, they are never tiled.
    """

    @property
    def fits_every_spec(self) -> bool:
        """Whether no parameter belongs to the spec, so that ``rebind`` works."""
        return False

    @property
    def separable(self) -> bool:
        """Whether the output of a tensor depends on that tensor and its kind alone."""
        layers = [child for child in self.children() if isinstance(child, Layer)]
        return bool(layers) and all(layer.separable for layer in layers)

    @property
    def is_silent(self) -> bool:
        """Whether its numbers are all zero, so that its output is: layers are linear in them."""
        params = list(self.parameters())
        return bool(params) and not any(bool(param.any()) for param in params)

    def simplified(self) -> "Layer":
        """A layer that does the same as this one does with its numbers, without sums of zeros."""
        return self._with_layers(lambda layer: layer.simplified())

    def part(self, spec: PermutationSpec) -> Self:
        """The same layer on a part of its weight space, where it is ``separable``."""
        return self._with_layers(lambda layer: layer.part(spec))

    def _with_layers(self, change: "Callable[[Layer], Layer]") -> Self:
        layers = {}
        for name, child in self.named_children():
            if isinstance(child, Layer):
                layers[name] = change(child)
        return with_modules(self, **layers)

    def columns(self, name: str) -> Tensor | None:
        """What a tensor of the spec is multiplied with where it is read as a whole.

        Where there are columns, ``forward`` takes a ``reading.Summary`` in the place of the tensor.

        Args:
            name: of the tensor.

        Returns:
            Tensor | None: ``(C_in, Q)``; None where ``forward`` needs the tensor itself.
        """
        return None

    def coefficients(self) -> Coefficients | None:
        """What a kernel needs to do the same; None where it has to be the layer itself."""
        return None

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same parameters on another spec, in a new module; this one stays as it is.

        Raises:
            ValueError: the layer does not fit every spec.
        """
        raise ValueError(
            f"theta of {type(self).__name__} belongs to one weight space; it cannot move to "
            "another spec."
        )


def with_modules(module: M, **modules: nn.Module) -> M:
    """A copy of a module with some submodules exchanged.

    It shares all parameters and the other submodules with the original.
    """
    other = copy(module)
    other._modules = module._modules | modules
    return other

"""A stack of layers that mix tensors, on momentum features, by a kernel that has no gradient.

Legend: E further channels; ``*shape`` the shape of a parameter.
"""

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from learned_opt.core.forward_only import is_forward_only
from learned_opt.core.tree import Tree
from learned_opt.optimizers import equivariant_stack as kernel
from learned_opt.optimizers.features import NUM_TENSOR_FEATURES, Normalisation
from learned_opt.optimizers.fused_function import FusedFunction, further_channels
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.encoding import encode
from learned_opt.unf.plan import Plan
from learned_opt.unf.stack import UNF

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class FusedEquivariant:
    """A stack whose layers all mix tensors, and what it reads, in one kernel.

    Args:
        function: the stack.
        spec: of the parameters.
        normalisation: of the features.
        shared: channels ``(C_shared,)`` that are the same for all entries.
        params: ``(*shape,)``.
    """

    def __init__(
        self,
        function: UNF,
        spec: PermutationSpec,
        normalisation: Normalisation,
        shared: Tensor,
        params: Tree,
    ) -> None:
        self.spec = spec
        self.normalisation = normalisation
        self.shared = shared
        self.params = params
        self.layers = function.coefficients() if is_forward_only() else []
        self.fits = bool(self.layers) and self._has_kernel()

    def __call__(
        self, grads: Tree, momenta: Tree, others: Sequence[Tree], more: Tree | None
    ) -> tuple[Tree, Tree]:
        """Move the momenta and evaluate the function, where it ``fits``; see ``FusedFunction``."""
        names = list(self.params)
        shapes = {name: tuple(self.params[name].shape) for name in names}
        program = kernel.add_program(_program(self.spec, self.layers[0].plan, (*shapes.items(),)))
        tensors = self.spec.view(self.params)

        groups = [weight for layer in self.layers for weight in layer.groups]
        biases = [bias for layer in self.layers for bias in layer.biases]
        results = kernel.equivariant_stack(
            [self.params[name].unsqueeze(0) for name in names],
            [grads[name].unsqueeze(0) for name in names],
            [momenta[name].unsqueeze(0) for name in names],
            further_channels(shapes, others, more),
            [weight.unsqueeze(0) for weight in groups],
            [bias.unsqueeze(0) for bias in biases],
            [self.shared.unsqueeze(0)],
            [tensor.numel() for tensor in tensors.values()],
            len(self.layers),
            program,
            self.normalisation,
        )

        remaining = iter([result.squeeze(0) for result in results])
        moved = {name: next(remaining) for name in names}
        outputs = {}
        for name, tensor in tensors.items():
            outputs[name] = next(remaining).reshape(*tensor.shape, -1)
        return self.spec.unview(outputs), moved

    def _has_kernel(self) -> bool:
        params = list(self.params.values())
        ranks = [len(names) for names in self.spec.axes.values()]
        is_plain = all(param.numel() > 0 for param in params) and max(ranks) <= kernel.MAX_RANK
        dtypes = {param.dtype for param in params}
        dtypes |= {weight.dtype for layer in self.layers for weight in layer.groups}
        if not is_plain or len(dtypes) > 1:
            return False

        in_channels = self.layers[0].groups[0].shape[1] - len(self.shared)
        widths = [in_channels, *(layer.groups[0].shape[3] for layer in self.layers)]
        return in_channels >= NUM_TENSOR_FEATURES and kernel.has_kernel(params[0], widths)


def fused_for(
    function: UNF,
    spec: PermutationSpec,
    normalisation: Normalisation,
    shared: Tensor,
    params: Tree,
) -> FusedFunction | FusedEquivariant | None:
    """The function by the first kernel that fits it; None where none does.

    Args: those of ``FusedFunction``.
    """
    of_trunk = FusedFunction(function, spec, normalisation, shared, params)
    if of_trunk.fits:
        return of_trunk
    of_all = FusedEquivariant(function, spec, normalisation, shared, params)
    return of_all if of_all.fits else None


@cache
def _program(spec: PermutationSpec, plan: Plan, shapes: Shapes) -> list[int]:
    return encode(spec, plan, dict(shapes))

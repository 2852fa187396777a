"""The function of a learned optimizer on momentum features, by a kernel that has no gradient.

Legend: C channels, Q columns, E further channels; ``*shape`` the shape of a parameter.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from learned_opt.core.forward_only import is_forward_only
from learned_opt.core.tree import Tree
from learned_opt.optimizers import momentum_stack as kernel
from learned_opt.optimizers.features import Normalisation
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.reading import Summary
from learned_opt.unf.stack import UNF


def further_channels(
    shapes: Mapping[str, tuple[int, ...]], others: Sequence[Tree], more: Tree | None
) -> list[Tensor]:
    """Channels beside the eight, ``(1, E, *shape)`` of each parameter.

    Args:
        shapes: of the parameters, as a kernel sees them.
        others: channels ``(*shape,)``, each a tree.
        more: channels ``(*shape, E)`` behind them.
    """
    if not others and more is None:
        return []

    further = []
    for name, shape in shapes.items():
        parts = [tree[name].unsqueeze(0) for tree in others]
        if more is not None:
            parts.append(more[name].movedim(-1, 0))
        further.append(torch.cat(parts).reshape(1, -1, *shape))
    return further


class FusedFunction:
    """A stack of layers on parameter, gradient, momenta and further channels, by a kernel.

    The leading pointwise layers run in the kernel. What is behind them reads their output or, of
    matrices and larger tensors, what the kernel leaves of it.

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
        self.function = function
        self.spec = spec
        self.normalisation = normalisation
        self.params = params

        self.fits = False
        if is_forward_only() and function.num_fused and len(function.layers) > 1:
            weights, biases = function.affine(shared)
            # the last of a stack of pointwise layers, which has no ReLU, is taken as columns
            count = function.num_fused - 1 if function.pointwise else function.num_fused
            self.weights = list(weights[:count])
            self.biases = list(biases[:count])
            self.last = (weights[count], biases[count]) if function.pointwise else None
            self.fits = self._has_kernel()

    def __call__(
        self,
        grads: Tree,
        momenta: Tree,
        others: Sequence[Tree],
        more: Tree | None,
        gradient_first: bool = False,
    ) -> tuple[Tree, Tree]:
        """Move the momenta and evaluate the function, where it ``fits``.

        Args:
            grads: ``(*shape,)``.
            momenta: ``(6, *shape)``.
            others: channels ``(*shape,)``, each a tree.
            more: channels ``(*shape, E)`` behind them.
            gradient_first: the first layer has the gradient before the parameter.

        Returns:
            tuple[Tree, Tree]: outputs ``(*shape, C_out)``, and the moved momenta.
        """
        names = list(self.params)
        columns = {name: self._columns(name) for name in names}
        wanted = [self._wanted(columns[name]) for name in names]
        shapes = {name: self._shape(name, columns[name]) for name in names}

        results = kernel.momentum_stack(
            [self.params[name].reshape(1, *shapes[name]) for name in names],
            [grads[name].reshape(1, *shapes[name]) for name in names],
            [momenta[name].reshape(1, -1, *shapes[name]) for name in names],
            further_channels(shapes, others, more),
            [weight.unsqueeze(0) for weight in self._ordered_weights(gradient_first)],
            [bias.unsqueeze(0) for bias in self.biases],
            [column.unsqueeze(0) for column in columns.values() if column is not None],
            wanted,
            self.normalisation,
        )
        remaining = iter([result.squeeze(0) for result in results])
        moved = {name: next(remaining).reshape(momenta[name].shape) for name in names}

        read: dict[str, Tensor | Summary] = {}
        for name, kind in zip(names, wanted, strict=True):
            first = next(remaining)
            if kind == kernel.ROWS:
                read[name] = first
                continue
            means = []
            if kind == kernel.DOTS_AND_MEANS:
                means = [next(remaining) for _ in shapes[name]]
            read[name] = Summary(first.movedim(0, -1), tuple(means))
        return self._outputs(read), moved

    def _has_kernel(self) -> bool:
        params = list(self.params.values())
        is_plain = all(param.numel() > 0 and param.ndim <= kernel.MAX_RANK for param in params)
        is_same = len({param.dtype for param in params}) == 1
        return is_plain and is_same and kernel.has_kernel(params[0], self.weights)

    def _columns(self, name: str) -> Tensor | None:
        """What the outputs of the kernel's layers are multiplied with; None to write them."""
        if self.last is not None:
            return self.last[0]
        # a piece of a cut parameter is no tensor of the kernel
        is_tensor = name in self.spec.axes and len(self.spec.axes[name]) <= kernel.MAX_RANK
        return self.function.columns(name) if is_tensor else None

    def _wanted(self, columns: Tensor | None) -> int:
        if columns is None:
            return kernel.ROWS
        is_mixing = self.last is None and not self.function.separable
        return kernel.DOTS_AND_MEANS if is_mixing else kernel.DOTS

    def _shape(self, name: str, columns: Tensor | None) -> tuple[int, ...]:
        """The shape in which the kernel sees a parameter: means are over the axes of the spec."""
        shape = tuple(self.params[name].shape)
        if self.last is not None or columns is None or name not in self.spec.views:
            return shape
        factors = self.spec.views[name]
        split = [length for axis in factors for length in axis]
        return (*split, *shape[len(factors) :])

    def _ordered_weights(self, gradient_first: bool) -> list[Tensor]:
        if not gradient_first:
            return self.weights
        first, *rest = self.weights
        return [torch.cat([first[1:2], first[0:1], first[2:]]), *rest]

    def _outputs(self, read: dict[str, Tensor | Summary]) -> Tree:
        outputs = {}
        if self.last is not None:
            for name, summary in read.items():
                assert isinstance(summary, Summary)
                outputs[name] = summary.dots + self.last[1]
            return outputs

        # parameters stand in for what is summarised, which has no entries to be cut or split
        rows = {}
        for name, value in read.items():
            rows[name] = value if isinstance(value, Tensor) else self.params[name].unsqueeze(-1)
        viewed = self.spec.view(rows)
        summaries = {name: value for name, value in read.items() if isinstance(value, Summary)}
        hidden = {name: summaries.get(name, tensor) for name, tensor in viewed.items()}
        return self.spec.unview(self.function.behind_pointwise(hidden))

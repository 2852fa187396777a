"""One use of a parameter by a convolution: rows are the patches of all images.

Legend: B images, G groups, R rows (images x positions), I inputs of a patch, O outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from learned_opt.optimizers.sites import Rows, Site


@dataclass(frozen=True)
class Convolution(Site):
    """A convolution; the reading is ``(O, I / G, *kernel)``, transposed ``(I, O / G, *kernel)``.

    Args:
        activations: the images ``(B, C, *size)``; gradients are ``(B, O, *positions)``.
        stride: of the kernel, for each direction; so are the next two.
        padding: of the images.
        dilation: of the kernel.
        transposed: whether it is a transposed convolution.
        output_padding: of a transposed convolution.
        groups: G.
    """

    activations: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    @override
    def lists_rows(self) -> bool:
        # rows of a transposed convolution have no gradient of their own; unfold knows no volumes
        return not self.transposed and self.activations.ndim <= 4

    def _weight_gradient(self, activations: Tensor, gradients: Tensor, shape: tuple) -> Tensor:
        like = activations.new_zeros(shape)
        settings = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding)
        backward = torch.ops.aten.convolution_backward
        mask = [False, True, False]
        results = backward(gradients, activations, like, None, *settings, self.groups, mask)
        return results[1]

    @override
    def products(self, power: int) -> Tensor:
        shape = self.route.shape
        return self._weight_gradient(self.activations**power, self.gradients**power, shape)

    @override
    def mean_activations(self, power: int) -> Tensor:
        values = self.activations**power
        ones = [1] * (values.ndim - 2)
        if self.transposed:  # without the borders: the mean over all positions
            return _over_positions(values).reshape(-1, 1, *ones)

        # the sum over rows of a patch is what an output of ones has for its gradient
        groups, (outputs, *rest) = self.groups, self.route.shape
        batch, _, *positions = self.gradients.shape
        of_ones = values.new_ones(batch, groups, *positions)
        means = self._weight_gradient(values, of_ones, (groups, *rest)) / self.num_rows
        return means.repeat_interleave(outputs // groups, 0)

    @override
    def mean_gradients(self, power: int) -> Tensor:
        means = _over_positions(self.gradients**power)
        ones = [1] * (self.gradients.ndim - 2)
        if not self.transposed:
            return means.reshape(-1, 1, *ones)
        per_group = means.reshape(self.groups, -1)
        inputs = self.route.shape[0]
        return per_group.repeat_interleave(inputs // self.groups, 0).reshape(inputs, -1, *ones)

    @override
    def rows(self, chosen: Tensor) -> Rows:
        num_positions = self.num_rows // len(self.gradients)
        examples = chosen // num_positions
        positions = chosen % num_positions

        images = self.activations.index_select(0, examples)
        kernel = self.route.shape[2:]
        settings = (kernel, self.dilation, self.padding, self.stride)
        if images.ndim == 3:  # unfold knows images, a sequence is one of height 1
            images = images.unsqueeze(2)
            settings = tuple(
                (first, *each) for first, each in zip((1, 1, 0, 1), settings, strict=True)
            )
        patches = functional.unfold(images, *settings)  # (n, C * kernel, positions)
        gradients = self.gradients.index_select(0, examples).flatten(2)
        return Rows(self._at(patches, positions), self._at(gradients, positions))

    def _at(self, values: Tensor, positions: Tensor) -> Tensor:
        """``(G, n, channels)`` of ``(n, G * channels, positions)``: one position of each row."""
        index = positions.reshape(-1, 1, 1).expand(-1, values.shape[1], 1)
        chosen = values.gather(2, index).squeeze(2)
        return chosen.unflatten(1, (self.groups, -1)).transpose(0, 1)

    @override
    def sides(self) -> np.ndarray:
        outputs = self.route.shape[0] // self.groups
        return self.route.positions.array.reshape(self.groups, outputs, -1).swapaxes(1, 2)


def _over_positions(values: Tensor) -> Tensor:
    """The mean of ``(B, C, *positions)`` over all but the channels."""
    return values.flatten(2).mean((0, 2))

"""Expert MLPs of one shape, stacked in one tensor for each layer.

Legend: A experts, C inputs of each, I inputs, O outputs, W width of an expert.
"""

from typing import NamedTuple

from torch import Tensor


class Experts(NamedTuple):
    """Parameters of A experts, and what they compute.

    Args:
        weights: ``(A, out, in)`` for each linear layer; none for constants.
        biases: ``(A, out)`` for each layer.
        slopes: ``(A, W)`` of the PReLU after each hidden layer; none for ReLU.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]

    def pick(self, used: Tensor) -> "Experts":
        """Some of the experts, by index ``(A,)``."""
        weights = tuple(stack[used] for stack in self.weights)
        biases = tuple(stack[used] for stack in self.biases)
        slopes = tuple(stack[used] for stack in self.slopes)
        return Experts(weights, biases, slopes)

    def __call__(self, inputs: Tensor) -> Tensor:
        """A group of inputs through each expert: ``(A, C, I) -> (A, C, O)``."""
        if not self.weights:
            # a constant; NaN stays NaN
            return self.biases[0].unsqueeze(1) + 0 * inputs.sum(-1, keepdim=True)

        hidden = inputs
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i > 0:
                slope = self.slopes[i - 1].unsqueeze(1) if self.slopes else 0.0  # (A, 1, W)
                hidden = hidden.clamp(min=0) + slope * hidden.clamp(max=0)
            hidden = hidden @ weight.mT + bias.unsqueeze(1)  # (A, C, out)
        return hidden

"""Looped ReLU networks: one that is a computer, its noisy copy to repair, and one to train.

Legend: M words of memory, N bits of a word, n bits of a state, B batch.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from tasks.base import Params
from tasks.networks.base import Network, check_sizes
from tasks.subleq.circuit import compact_circuit, full_circuit
from tasks.subleq.machine import Machine
from tasks.subleq.wires import ReLULayer

HALT_CHECK = 16  # instructions between two looks at whether all machines have halted


class SubleqNetwork(nn.Module):
    """23 layers ``x <- R(W x + b)`` that execute one SUBLEQ instruction; looped, a computer.

    Every W is wiring plus low rank, so that an instruction costs O(n log n) work and memory.

    Args:
        num_words: M, a power of two.
        word_bits: N, from log2 M.
        separate: instructions in a memory of their own (see ``Machine``).
        compact: 9 layers, with weights up to 2^(N - 1).
        trainable: weights and biases want gradients.
        dtype: precision of weights and states; every whole number on the way must fit.

    Raises:
        ValueError: the machine is impossible, or ``dtype`` holds too few bits for it.
    """

    def __init__(
        self,
        num_words: int,
        word_bits: int,
        separate: bool = False,
        compact: bool = False,
        trainable: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.machine = Machine(num_words, word_bits, separate)
        self.layers = nn.Sequential(*(compact_circuit if compact else full_circuit)(self.machine))
        largest, exact = (
            4 * max(float(p.detach().abs().max()) for p in self.parameters()),
            2 / torch.finfo(dtype).eps,
        )
        if largest > exact:  # the sums inside of units are smaller than that
            raise ValueError(
                f"{dtype} is exact up to {exact:.0f}, but word_bits={word_bits} needs {largest:.0f}."
            )
        self.to(dtype).requires_grad_(trainable)

    def forward(self, state: Tensor) -> Tensor:
        """One instruction, ``(..., n) -> (..., n)``."""
        wires = state.reshape(-1, state.shape[-1]).T.contiguous()
        return self.layers(wires).T.reshape(state.shape)

    def wires(self, state: Tensor) -> list[Tensor]:
        """The outputs ``(width,)`` of every layer during one instruction of a machine ``(n,)``."""
        outputs = [state[:, None]]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        return [output.squeeze(-1) for output in outputs[1:]]

    @torch.no_grad()
    def run(self, state: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
        """Loop until every machine has halted, or as long as allowed.

        Args:
            state: ``(..., n)``.
            max_steps: most instructions.

        Returns:
            tuple[Tensor, Tensor]: last states ``(..., n)``, and instructions ``(...,)`` until each machine's state
            changed no more; ``max_steps`` for one that was still running.
        """
        steps = state.new_zeros(state.shape[:-1], dtype=torch.long)
        for done in range(max_steps):
            following = self(state)
            moving = (following != state).any(-1)
            state, steps = following, steps + moving
            if done % HALT_CHECK == 0 and not moving.any():
                break
        return state, steps

    def encode(self, memory: Tensor, pc: Tensor, program: Tensor | None = None) -> Tensor:
        """State bits ``(..., n)`` in the precision of the weights; see ``Machine.encode``."""
        weight = next(self.parameters())
        return self.machine.encode(memory, pc, program, weight.dtype).to(weight.device)

    def decode(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Memory ``(..., M)`` and pc ``(...,)``."""
        return self.machine.decode(state)

    def dense(self) -> list[tuple[Tensor, Tensor]]:
        """Every layer's W, ``(n_out, n_in)``, and b: O(n^2) numbers."""
        return [layer.dense() for layer in self._relu_layers()]

    def num_weights(self) -> int:
        """Weights of all W that are not zero."""
        return sum(layer.num_weights() for layer in self._relu_layers())

    def _relu_layers(self) -> list[ReLULayer]:
        return [cast(ReLULayer, layer) for layer in self.layers]


class NoisySubleq(Network):
    """The layers of ``SubleqNetwork`` as plain matrices that start with noise on every weight: one to repair.

    Args:
        input_shape: ``(n,)``.
        num_outputs: n.
        num_words: M.
        word_bits: N.
        noise: standard deviation of what is added to weights and biases.
        compact: 9 layers in place of 23.

    Raises:
        ValueError: the machine has other than n bits, or the noise is negative.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        num_words: int,
        word_bits: int,
        noise: float = 0.02,
        compact: bool = False,
    ) -> None:
        super().__init__()
        exact = SubleqNetwork(num_words, word_bits, compact=compact)
        num_bits = exact.machine.state_bits
        if noise < 0:
            raise ValueError(f"noise must not be negative, got {noise}.")
        if tuple(input_shape) != (num_bits,) or num_outputs != num_bits:
            raise ValueError(
                f"num_words={num_words} and word_bits={word_bits} make {num_bits} state bits in and out, "
                f"but the data has {tuple(input_shape)} and {num_outputs}."
            )
        self.noise = noise
        self.layers = nn.ModuleList()
        for i, (weight, bias) in enumerate(exact.dense()):
            self.layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
            self.register_buffer(f"exact_{i}_weight", weight)
            self.register_buffer(f"exact_{i}_bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, n) -> (B, n)``."""
        for layer in self.layers:
            inputs = layer(inputs).relu()
        return inputs

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """The exact value and noise."""
        return self._exact(name).cpu() + self.noise * torch.randn(
            parameter.shape, generator=generator
        )

    def figures(self, params: Params) -> dict[str, Tensor]:
        """Root mean square difference from the exact weights."""
        squares = torch.cat(
            [(value - self._exact(name)).square().flatten() for name, value in params.items()]
        )
        return {"distance": squares.mean().sqrt()}

    def _exact(self, name: str) -> Tensor:
        return self.get_buffer(name.replace("layers.", "exact_").replace(".", "_"))


class LoopedMLP(Network):
    """A ReLU MLP that is applied again and again with the same weights, between a linear layer in and one out.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs.
        width: wires that go around.
        hidden_sizes: widths inside of the loop.
        num_loops: how often it runs.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        width: int = 32,
        hidden_sizes: Sequence[int] = (32,),
        num_loops: int = 2,
    ) -> None:
        super().__init__()
        inside = {f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)}
        check_sizes(num_outputs=num_outputs, width=width, num_loops=num_loops, **inside)
        self.num_loops = num_loops
        self.read = nn.Linear(prod(input_shape), width)
        self.loop = nn.ModuleList(
            nn.Linear(*pair) for pair in pairwise([width, *hidden_sizes, width])
        )
        self.write = nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_outputs)``."""
        wires = self.read(inputs.flatten(1)).relu()
        for _ in range(self.num_loops):
            for layer in self.loop:
                wires = layer(wires).relu()
        return self.write(wires)

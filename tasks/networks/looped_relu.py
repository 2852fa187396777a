"""Looped ReLU networks: one that is a computer, its noisy copy to repair, and one to train.

Legend: M words of memory, N bits of a word, n bits of a state, B batch.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.base import Params
from tasks.networks.base import Network, check_each_size, check_sizes
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

    Source: the idea of a looped 23-layer ReLU network is that of arXiv 2410.09375; the weights
    are ours.
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
        circuit = compact_circuit if compact else full_circuit
        self.layers = nn.Sequential(*circuit(self.machine))

        # the sums inside of units are smaller than four times the largest weight
        largest_weight = max(float(param.detach().abs().max()) for param in self.parameters())
        largest_sum = 4 * largest_weight
        largest_exact = 2 / torch.finfo(dtype).eps
        if largest_sum > largest_exact:
            raise ValueError(
                f"{dtype} is exact up to {largest_exact:.0f}, "
                f"but word_bits={word_bits} needs {largest_sum:.0f}."
            )

        self.to(dtype).requires_grad_(trainable)

    def forward(self, state: Tensor) -> Tensor:
        """Execute one instruction, ``(..., n) -> (..., n)``."""
        wires = state.reshape(-1, state.shape[-1]).T.contiguous()  # (n, B)
        return self.layers(wires).T.reshape(state.shape)

    def wires(self, state: Tensor) -> list[Tensor]:
        """The outputs ``(width,)`` of every layer during one instruction of a machine ``(n,)``."""
        wires = state[:, None]  # (n, 1)
        outputs = []
        for layer in self.layers:
            wires = layer(wires)
            outputs.append(wires.squeeze(-1))
        return outputs

    @torch.no_grad()
    def run(self, state: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
        """Loop until every machine has halted, or as long as allowed.

        Args:
            state: ``(..., n)``.
            max_steps: most instructions.

        Returns:
            tuple[Tensor, Tensor]: last states ``(..., n)``, and instructions ``(...,)`` until
            each machine's state changed no more; ``max_steps`` for one that was still running.
        """
        steps = state.new_zeros(state.shape[:-1], dtype=torch.long)
        for step in range(max_steps):
            next_state = self(state)
            moving = (next_state != state).any(-1)
            state = next_state
            steps = steps + moving

            # a look costs a wait for the device, so that not every step has one
            if step % HALT_CHECK == 0 and not moving.any():
                break
        return state, steps

    def encode(self, memory: Tensor, pc: Tensor, program: Tensor | None = None) -> Tensor:
        """State bits ``(..., n)`` in the precision of the weights; see ``Machine.encode``."""
        weight = next(self.parameters())
        return self.machine.encode(memory, pc, program, weight.dtype).to(weight.device)

    def decode(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Memory ``(..., M)`` and program counter ``(...,)`` of states ``(..., n)``."""
        return self.machine.decode(state)

    def dense(self) -> list[tuple[Tensor, Tensor]]:
        """Every layer's W, ``(n_out, n_in)``, and b: O(n^2) numbers."""
        return [layer.dense() for layer in self._relu_layers()]

    def num_weights(self) -> int:
        """How many weights of all W are not zero."""
        return sum(layer.num_weights() for layer in self._relu_layers())

    def _relu_layers(self) -> list[ReLULayer]:
        return [cast(ReLULayer, layer) for layer in self.layers]


class NoisySubleq(Network):
    """The layers of ``SubleqNetwork`` as plain matrices with noise on every weight: to repair.

    Args:
        input_shape: ``(n,)``.
        num_outputs: n.
        num_words: M.
        word_bits: N.
        noise: standard deviation of what is added to weights and biases.
        compact: 9 layers instead of 23.

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
        if noise < 0:
            raise ValueError(f"noise must not be negative, got {noise}.")

        exact = SubleqNetwork(num_words, word_bits, compact=compact)
        num_bits = exact.machine.state_bits
        if tuple(input_shape) != (num_bits,) or num_outputs != num_bits:
            raise ValueError(
                f"num_words={num_words} and word_bits={word_bits} make {num_bits} state bits in "
                f"and out, but the data has {tuple(input_shape)} and {num_outputs}."
            )

        self.noise = noise
        self.layers = nn.ModuleList()
        for i, (weight, bias) in enumerate(exact.dense()):
            self.layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
            self.register_buffer(f"exact_{i}_weight", weight)
            self.register_buffer(f"exact_{i}_bias", bias)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        wires = inputs  # (B, n)
        for layer in self.layers:
            wires = layer(wires).relu()
        return wires

    @override
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        noise = self.noise * torch.randn(parameter.shape, generator=generator)
        return self._exact(name).cpu() + noise

    @override
    def figures(self, params: Params) -> dict[str, Tensor]:
        squares = []
        for name, value in params.items():
            squares.append((value - self._exact(name)).square().flatten())
        return {"distance": torch.cat(squares).mean().sqrt()}

    def _exact(self, name: str) -> Tensor:
        """The exact value of the parameter ``layers.I.weight`` or ``layers.I.bias``."""
        return self.get_buffer(name.replace("layers.", "exact_").replace(".", "_"))


class LoopedMLP(Network):
    """A ReLU MLP that is applied again and again, between a linear layer in and one out.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs.
        width: wires that go around.
        hidden_sizes: widths inside of the loop.
        num_loops: how often it runs.

    Raises:
        ValueError: a size is below 1.
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
        check_sizes(num_outputs=num_outputs, width=width, num_loops=num_loops)
        check_each_size("hidden_sizes", hidden_sizes)

        self.num_loops = num_loops
        self.read = nn.Linear(prod(input_shape), width)
        self.loop = nn.ModuleList()
        for inputs, outputs in pairwise([width, *hidden_sizes, width]):
            self.loop.append(nn.Linear(inputs, outputs))
        self.write = nn.Linear(width, num_outputs)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        wires = self.read(inputs.flatten(1)).relu()  # (B, width)
        for _ in range(self.num_loops):
            for layer in self.loop:
                wires = layer(wires).relu()
        return self.write(wires)

"""The looped ReLU network that is a computer, exactly and structured.

Legend: M words of memory, N bits of a word, n bits of a state, B batch.
"""

import torch
from torch import Tensor, nn

from tasks.subleq.circuit import compact_circuit, full_circuit
from tasks.subleq.machine import Machine

HALT_CHECK = 16  # instructions between two looks at whether all machines have halted


class SubleqNetwork(nn.Module):
    """23 layers ``x <- R(W x + b)`` that execute one SUBLEQ instruction; looped, a computer.

    Every W is wiring plus low rank, so that an instruction costs O(n log n) work and memory.

    Args:
        num_words: M, a power of two.
        word_bits: N, from log2 M.
        separate: instructions in a memory of their own (see ``Machine``).
        compact: 9 layers, with weights up to 2^N.
        trainable: weights want gradients; they are shared by the units of a group.
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
        largest = 2 * max(float(p.detach().abs().max()) for p in self.parameters())  # of what a unit sums up
        if largest > 2 / torch.finfo(dtype).eps:
            raise ValueError(f"{dtype} is exact up to {2 / torch.finfo(dtype).eps:.0f}, but word_bits={word_bits} needs {largest:.0f}.")
        self.to(dtype).requires_grad_(trainable)

    def forward(self, state: Tensor) -> Tensor:
        """One instruction, ``(..., n) -> (..., n)``."""
        wires = state.reshape(-1, state.shape[-1]).T.contiguous()
        return self.layers(wires).T.reshape(state.shape)

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
        return [layer.dense() for layer in self.layers]

    def num_weights(self) -> int:
        """Weights of all W that are not zero."""
        return sum(layer.num_weights() for layer in self.layers)

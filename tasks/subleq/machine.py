"""A computer with one instruction, SUBLEQ: sizes, state bits, and what the instruction does.

Instruction ``a b c``: ``memory[b] -= memory[a]``; then go to c where the result is at most 0, else
to the next one.

Legend: M words of memory, N bits of a word, L = log2 M bits of an address, n bits of a state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_WORD = 62  # bits; differences of two words stay within int64


@dataclass(frozen=True)
class Machine:
    """Sizes and semantics. Words are two's complement, addresses count modulo M.

    Args:
        num_words: M, a power of two.
        word_bits: N; an address is the low L bits of a word.
        separate: keep instructions in a memory apart, M triples of addresses that no program can
            change, with ``pc`` counting triples; otherwise they are words of the one memory, at
            pc, pc + 1 and pc + 2.

    Raises:
        ValueError: M is no power of two from 4 on, or a word is too small for an address or too
            large.

    >>> machine = Machine(num_words=8, word_bits=4)
    >>> memory = torch.tensor([3, 4, 6, 5, 5, 0, 0, 0])  # memory[4] -= memory[3], then to 6
    >>> machine.step(memory, torch.tensor(0))
    (tensor([3, 4, 6, 5, 0, 0, 0, 0]), tensor(6))
    """

    num_words: int
    word_bits: int
    separate: bool = False

    def __post_init__(self) -> None:
        if self.num_words < 4 or self.num_words & (self.num_words - 1):
            raise ValueError(
                f"num_words must be a power of two and at least 4, got {self.num_words}."
            )

        if not self.address_bits <= self.word_bits <= LARGEST_WORD:
            raise ValueError(
                f"word_bits must be from {self.address_bits} (an address of {self.num_words} "
                f"words) to {LARGEST_WORD}, got {self.word_bits}."
            )

    @property
    def address_bits(self) -> int:
        """How many bits an address has, L."""
        return self.num_words.bit_length() - 1

    @property
    def stride(self) -> int:
        """How far pc moves to the next instruction."""
        return 1 if self.separate else 3

    @property
    def state_bits(self) -> int:
        """Bits of a state, n: the memory, the instructions where they are separate, and pc."""
        program_bits = 3 * self.num_words * self.address_bits if self.separate else 0
        return self.num_words * self.word_bits + program_bits + self.address_bits

    def signed(self, word: int) -> int:
        """The integer that a word stands for."""
        return word - (1 << self.word_bits) if word >> (self.word_bits - 1) else word

    def word(self, value: int) -> int:
        """The word that stands for an integer, modulo 2^N."""
        return value & ((1 << self.word_bits) - 1)

    def encode(
        self,
        memory: Tensor,
        pc: Tensor,
        program: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """State bits, 0 or 1: memory word by word, lowest bit first, then the program, then pc.

        Args:
            memory: integers ``(..., M)`` from 0 to 2^N - 1.
            pc: integers ``(...,)`` from 0 to M - 1.
            program: addresses ``(..., M, 3)`` of a machine with separate instructions.
            dtype: of the bits.

        Returns:
            Tensor: ``(..., n)``.

        Raises:
            ValueError: a shape or a value does not fit the machine.
        """
        if memory.shape[-1:] != (self.num_words,) or memory.shape[:-1] != pc.shape:
            shapes = f"{tuple(memory.shape)} and {tuple(pc.shape)}"
            raise ValueError(f"memory must be (..., {self.num_words}) and pc (...,), got {shapes}.")
        if self.separate != (program is not None):
            kind = "no program" if program is None else "a program"
            raise ValueError(
                f"program goes with separate=True and only with it, got separate={self.separate} "
                f"and {kind}."
            )

        parts = [_bits("memory", memory, self.word_bits).flatten(-2)]
        if program is not None:
            parts.append(_bits("program", program, self.address_bits).flatten(-3))
        parts.append(_bits("pc", pc, self.address_bits))
        return torch.cat(parts, -1).to(dtype)

    def decode(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Memory ``(..., M)`` and pc ``(...,)`` as integers.

        The inverse of ``encode`` but for the program, which does not change.
        """
        size = self.num_words * self.word_bits
        words = state[..., :size].unflatten(-1, (self.num_words, self.word_bits))
        return _integers(words), _integers(state[..., -self.address_bits :])

    def step(
        self, memory: Tensor, pc: Tensor, program: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One instruction of every machine in a batch, on integers.

        Args:
            memory: as for ``encode``.
            pc: as for ``encode``.
            program: as for ``encode``.

        Returns:
            tuple[Tensor, Tensor]: memory ``(..., M)`` and pc ``(...,)`` after it.
        """
        if program is None:
            addresses = (pc[..., None] + torch.arange(3, device=pc.device)) % self.num_words
            instruction = memory.gather(-1, addresses) % self.num_words
        else:
            index = pc[..., None, None].expand(*pc.shape, 1, 3)
            instruction = program.gather(-2, index).squeeze(-2)
        a, b, c = instruction.split(1, -1)  # (..., 1) each

        result = (memory.gather(-1, b) - memory.gather(-1, a)) & ((1 << self.word_bits) - 1)
        jumps = (result == 0) | (result >> (self.word_bits - 1) == 1)
        following = (pc[..., None] + self.stride) % self.num_words
        return memory.scatter(-1, b, result), torch.where(jumps, c, following).squeeze(-1)


def _bits(name: str, values: Tensor, num_bits: int) -> Tensor:
    """``(...)`` -> ``(..., num_bits)``, lowest first."""
    if ((values < 0) | (values >> num_bits > 0)).any():
        raise ValueError(
            f"{name} must be from 0 to 2^{num_bits} - 1, got {values.min()} to {values.max()}."
        )
    return (values[..., None] >> torch.arange(num_bits, device=values.device)) & 1


def _integers(bits: Tensor) -> Tensor:
    """``(..., num_bits) -> (...)``, lowest first."""
    shifts = torch.arange(bits.shape[-1], device=bits.device)
    return ((bits > 0.5).long() << shifts).sum(-1)

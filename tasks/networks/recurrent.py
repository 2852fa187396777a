"""Recurrent language models: one network, several cells.

Every gate has tensors of its own, so that no axis mixes gates with hidden units.

Legend: B batch, L length, E embedding, H hidden units.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tasks.networks.base import Network, check_sizes

State = tuple[Tensor, ...]


class RecurrentNetwork(Network):
    """Embedding, a recurrent cell over the positions, a linear head at every position.

    Args:
        input_shape: ``(length,)`` of the token sequences.
        num_outputs: size of the vocabulary, read and written.
        cell: constructor ``(inputs, hidden) -> cell``.
        embed_size: width of the embedding.
        hidden_size: hidden units.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        cell: Callable[[int, int], "Cell"],
        embed_size: int = 32,
        hidden_size: int = 64,
    ) -> None:
        super().__init__()
        check_sizes(num_outputs=num_outputs, embed_size=embed_size, hidden_size=hidden_size)
        del input_shape  # any length will do
        self.embed = nn.Embedding(num_outputs, embed_size)
        self.cell = cell(embed_size, hidden_size)
        self.head = nn.Linear(hidden_size, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, L) -> (B, L, vocabulary)``."""
        embedded, state, outputs = self.embed(inputs), None, []
        for position in range(inputs.shape[1]):
            output, state = self.cell(embedded[:, position], state)
            outputs.append(output)
        return self.head(torch.stack(outputs, 1))

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """As every network, but for what the cell starts differently."""
        own = name.removeprefix("cell.")
        if own in self.cell.identities:
            return torch.eye(parameter.shape[0])
        if own in self.cell.ones:
            return torch.ones(parameter.shape)
        return super().init_parameter(name, parameter, generator)


class Cell(nn.Module):
    """One step of a recurrence.

    Args:
        hidden: hidden units.
        identities: parameters that start as the identity.
        ones: parameters that start as ones.
    """

    def __init__(
        self, hidden: int, identities: tuple[str, ...] = (), ones: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.hidden, self.identities, self.ones = hidden, identities, ones

    def zeros(self, x: Tensor) -> Tensor:
        """The first state of a batch, ``(B, H)``."""
        return x.new_zeros(x.shape[0], self.hidden)


class RNNCell(Cell):
    """``h <- f(W x + U h + b)``.

    Args:
        inputs: width of x.
        hidden: width of h.
        identity: start U as the identity and use ReLU, the IRNN of Le et al. 2015 (arXiv 1504.00941); else tanh.
    """

    def __init__(self, inputs: int, hidden: int, identity: bool = True) -> None:
        super().__init__(hidden, identities=("keep.weight",) if identity else ())
        self.read, self.keep = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden, bias=False)
        self.identity = identity

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """``(B, E)`` and ``(B, H)`` -> output ``(B, H)`` and the next state."""
        drive = self.read(x) if state is None else self.read(x) + self.keep(state[0])
        hidden = drive.relu() if self.identity else drive.tanh()
        return hidden, (hidden,)


class GRUCell(Cell):
    """Gated recurrent unit, the equations and gate names of ``torch.nn.GRU``.

    Args:
        inputs: width of x.
        hidden: width of h.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(hidden)
        self.read = nn.ModuleDict({gate: nn.Linear(inputs, hidden) for gate in "rzn"})
        self.keep = nn.ModuleDict({gate: nn.Linear(hidden, hidden) for gate in "rzn"})

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """``(B, E)`` and ``(B, H)`` -> output ``(B, H)`` and the next state."""
        hidden = self.zeros(x) if state is None else state[0]
        reset = torch.sigmoid(self.read["r"](x) + self.keep["r"](hidden))
        update = torch.sigmoid(self.read["z"](x) + self.keep["z"](hidden))
        new = torch.tanh(self.read["n"](x) + reset * self.keep["n"](hidden))
        hidden = (1 - update) * new + update * hidden
        return hidden, (hidden,)


class LSTMCell(Cell):
    """Long short-term memory as ``torch.nn.LSTM`` but with one bias per gate; that of the forget gate starts at 1.

    Args:
        inputs: width of x.
        hidden: width of h.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(hidden, ones=("read.f.bias",))
        self.read = nn.ModuleDict({gate: nn.Linear(inputs, hidden) for gate in "ifgo"})
        self.keep = nn.ModuleDict({gate: nn.Linear(hidden, hidden, bias=False) for gate in "ifgo"})

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """``(B, E)`` and two times ``(B, H)`` -> output ``(B, H)`` and the next state."""
        hidden, memory = (self.zeros(x), self.zeros(x)) if state is None else state
        enter, forget, new, leave = (
            self.read[gate](x) + self.keep[gate](hidden) for gate in self.read
        )
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * memory.tanh()
        return hidden, (hidden, memory)

"""Recurrent language models: one network, several cells.

Every gate has tensors of its own, so that no axis mixes gates with hidden units.

Legend: B batch, L length, E embedding, H hidden units.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

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
        tied: whether the head is a linear map to the embedding's width and the embedding itself.

    Raises:
        ValueError: a size is below 1.

    Source: Press & Wolf 2017 (arXiv 1608.05859) for tied embeddings.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        cell: Callable[[int, int], "Cell"],
        embed_size: int = 32,
        hidden_size: int = 64,
        tied: bool = False,
    ) -> None:
        super().__init__()
        del input_shape  # any length will do
        check_sizes(num_outputs=num_outputs, embed_size=embed_size, hidden_size=hidden_size)

        self.embed = nn.Embedding(num_outputs, embed_size)
        self.cell = cell(embed_size, hidden_size)
        self.head = nn.Linear(hidden_size, embed_size if tied else num_outputs)
        self.bias = nn.Parameter(torch.zeros(num_outputs)) if tied else None

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        embedded = self.embed(inputs)  # (B, L, E)
        state: State | None = None
        outputs = []
        for position in range(inputs.shape[1]):
            output, state = self.cell(embedded[:, position], state)
            outputs.append(output)

        logits = self.head(torch.stack(outputs, 1))  # (B, L, vocabulary), tied: (B, L, E)
        return logits if self.bias is None else logits @ self.embed.weight.T + self.bias

    @override
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        name_in_cell = name.removeprefix("cell.")
        if name_in_cell in self.cell.identities:
            return torch.eye(parameter.shape[0])
        if name_in_cell in self.cell.ones:
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
        self.hidden = hidden
        self.identities = identities
        self.ones = ones

    def zeros(self, x: Tensor) -> Tensor:
        """The first state ``(B, H)`` of a batch of inputs ``(B, E)``."""
        return x.new_zeros(x.shape[0], self.hidden)


class RNNCell(Cell):
    """``h <- f(W x + U h + b)``.

    Args:
        inputs: width of x.
        hidden: width of h.
        identity: start U as the identity and use ReLU; else tanh.

    Source: with ``identity`` the IRNN of Le et al. 2015 (arXiv 1504.00941).
    """

    def __init__(self, inputs: int, hidden: int, identity: bool = True) -> None:
        super().__init__(hidden, identities=("keep.weight",) if identity else ())
        self.identity = identity
        self.read = nn.Linear(inputs, hidden)
        self.keep = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """``(B, E)`` and ``(B, H)`` -> output ``(B, H)`` and the next state."""
        drive = self.read(x)  # (B, H)
        if state is not None:
            drive = drive + self.keep(state[0])

        hidden = drive.relu() if self.identity else drive.tanh()
        return hidden, (hidden,)


class GRUCell(Cell):
    """Gated recurrent unit, the equations and gate names of ``torch.nn.GRU``.

    Args:
        inputs: width of x.
        hidden: width of h.

    Source: Cho et al. 2014 (arXiv 1406.1078), in the form of ``torch.nn.GRU``.
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
    """Long short-term memory as ``torch.nn.LSTM``, but with one bias per gate.

    The bias of the forget gate starts at 1, so that the cell remembers at first.

    Args:
        inputs: width of x.
        hidden: width of h.

    Source: Hochreiter & Schmidhuber 1997; the start of the forget gate is that of Gers et al. 2000.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(hidden, ones=("read.f.bias",))
        self.read = nn.ModuleDict({gate: nn.Linear(inputs, hidden) for gate in "ifgo"})
        self.keep = nn.ModuleDict({gate: nn.Linear(hidden, hidden, bias=False) for gate in "ifgo"})

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """``(B, E)`` and two times ``(B, H)`` -> output ``(B, H)`` and the next state."""
        if state is None:
            hidden = self.zeros(x)
            memory = self.zeros(x)
        else:
            hidden, memory = state

        drives = {gate: self.read[gate](x) + self.keep[gate](hidden) for gate in "ifgo"}  # (B, H)
        kept = drives["f"].sigmoid() * memory
        memory = kept + drives["i"].sigmoid() * drives["g"].tanh()

        hidden = drives["o"].sigmoid() * memory.tanh()
        return hidden, (hidden, memory)

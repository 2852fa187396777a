"""Sequence to sequence: a recurrent encoder hands its state to a recurrent decoder.

Legend: B batch, L_q and L_a tokens of question and answer, V vocabulary, H hidden units.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import Network, check_sizes
from tasks.networks.recurrent import Cell, State


class Seq2Seq(Network):
    """Encoder and decoder cells on one-hot tokens, a linear head on the decoder.

    Args:
        input_shape: ``(L_q,)``.
        num_outputs: size of the vocabulary, read and written.
        cell: constructor ``(inputs, hidden) -> cell``.
        hidden_size: hidden units of both cells.

    Raises:
        ValueError: a size is below 1.

    Source: Sutskever et al. 2014 (arXiv 1409.3215), without embedding and with one layer.
    """

    one_hot: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        cell: Callable[[int, int], Cell],
        hidden_size: int = 128,
    ) -> None:
        super().__init__()
        del input_shape  # any length will do
        check_sizes(num_outputs=num_outputs, hidden_size=hidden_size)

        self.encoder = cell(num_outputs, hidden_size)
        self.decoder = cell(num_outputs, hidden_size)
        self.head = nn.Linear(hidden_size, num_outputs)
        self.register_buffer("one_hot", torch.eye(num_outputs), persistent=False)  # (V, V)

    @override
    def forward(self, inputs: Tensor, answers: Tensor | None = None, length: int = 1) -> Tensor:
        """Scores of every token of the answer.

        Args:
            inputs: questions ``(B, L_q)``; the last token starts the decoder.
            answers: ``(B, L_a)``, each token of which is read after it was predicted; None to
                read the network's best guesses instead.
            length: L_a where there are no answers.

        Returns:
            Tensor: ``(B, L_a, V)``.
        """
        state: State | None = None
        for position in range(inputs.shape[1]):
            _, state = self.encoder(self.one_hot[inputs[:, position]], state)

        if answers is not None:
            length = answers.shape[1]

        token = inputs[:, -1]  # (B,)
        all_scores = []
        for position in range(length):
            hidden, state = self.decoder(self.one_hot[token], state)
            scores = self.head(hidden)  # (B, V)
            all_scores.append(scores)
            token = scores.argmax(-1) if answers is None else answers[:, position]
        return torch.stack(all_scores, 1)

    @override
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        # uniform within 1 / sqrt(H), as in torch.nn.GRU
        bound = self.head.in_features**-0.5
        return (2 * torch.rand(parameter.shape, generator=generator) - 1) * bound

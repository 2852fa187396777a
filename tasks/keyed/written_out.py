"""Attention and recurrences in plain operations.

Torch has fused kernels for them, which vmap cannot batch, which draw their dropout themselves,
and which autograd cannot differentiate twice.

Legend: N batch, L length, H hidden units, D directions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decompositions

from tasks.keyed.draws import Draws
from tasks.keyed.dropout import dropout as drop

Layer = Callable[..., tuple[Tensor, Any]]


def attention(
    draws: Draws,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``."""
    attended, weights = torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, 0.0, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )
    if dropout_p == 0:
        return attended

    if enable_gqa:  # several heads of queries share one of values
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return drop(draws, weights, dropout_p, True) @ value


def lstm(draws: Draws, input: Tensor, hx: Sequence[Tensor], *settings: Any) -> tuple[Tensor, ...]:
    """``torch.lstm``; ``settings`` are the rest of its arguments."""
    num_weights = 4 if settings[1] else 2
    if hx[0].shape[-1] != hx[1].shape[-1]:  # a projection
        num_weights += 1

    states = list(zip(hx[0], hx[1], strict=True))  # of every layer and direction, (N, H) each
    layer = decompositions.one_layer_lstm
    outputs, last = _layers(draws, layer, input, states, num_weights, *settings)

    hidden, memory = zip(*last, strict=True)
    return outputs, torch.stack(hidden), torch.stack(memory)


def simple_recurrence(hidden_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``, by what one step computes."""
    layer = partial(decompositions.one_layer_rnn, hidden_fn=hidden_fn)

    def run(draws: Draws, input: Tensor, hx: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
        num_weights = 4 if settings[1] else 2
        outputs, last = _layers(draws, layer, input, list(hx), num_weights, *settings)
        return outputs, torch.stack(last)

    return run


gru = simple_recurrence(decompositions.gru_cell)
rnn_tanh = simple_recurrence(decompositions.rnn_cell(torch.tanh))
rnn_relu = simple_recurrence(decompositions.rnn_cell(torch.relu))


def _layers(
    draws: Draws,
    layer: Layer,
    input: Tensor,
    states: list[Any],
    num_weights: int,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, list[Any]]:
    """Run layer after layer, with dropout between them.

    torch's decomposition of a whole stack leaves the dropout out.

    Returns:
        tuple[Tensor, list[Any]]: outputs, and the last state of every layer and direction.
    """
    sequence = input.transpose(0, 1) if batch_first else input  # (L, N, features)
    num_directions = 2 if bidirectional else 1

    last = []
    for level in range(num_layers):
        outputs = []
        for direction in range(num_directions):
            number = level * num_directions + direction
            start = number * num_weights
            tensors = weights[start : start + num_weights]
            output, state = layer(
                sequence, states[number], tensors, has_biases, reverse=direction == 1
            )
            outputs.append(output)
            last.append(state)

        sequence = torch.cat(outputs, -1)  # (L, N, D * H)
        if level < num_layers - 1:
            sequence = drop(draws, sequence, dropout, train)

    return (sequence.transpose(0, 1) if batch_first else sequence), last

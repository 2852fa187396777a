"""Where the numbers of Celo, Celo-Adam and VeLO lie in their authors' files, and in our theta.

Numbers that never act are in the files alone: a layer of the LSTM that nothing reads, controls of a
bank of one, and the third output of the MLP.

Legend: Z inputs of the LSTM, H hidden units, B networks of the bank.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from learned_opt.deploy.flax_msgpack import Keys
from learned_opt.optimizers.velo_features import WIDTHS

Layout = dict[Keys, tuple[int, ...]]  # keys of an array -> its shape
HIDDEN = 4  # width of the MLPs
MLP = ("ff_mod_stack", "~")
LSTM = "rnn_params"
STEP_SIZE = (LSTM, "step_size", "w")
STAGE_INPUTS = 18  # Z of Celo and Celo-Adam, 30 of VeLO


def scheduler_layout(num_inputs: int, hidden_size: int, bank_size: int | None) -> Layout:
    """The arrays of the LSTM.

    Args:
        num_inputs: Z.
        hidden_size: H.
        bank_size: B; None where there is no bank.
    """
    layout: Layout = {}
    affine = {
        "linear": (num_inputs, hidden_size),
        "linear_1": (num_inputs, hidden_size),
        "linear_2": (num_inputs, hidden_size),
        "rnn/linear": (2 * hidden_size, 4 * hidden_size),
        "step_size": (hidden_size, 1),
    }
    if bank_size is not None:
        affine["rnn_to_controls"] = (hidden_size, bank_size)
    for name, shape in affine.items():
        layout[LSTM, name, "w"] = shape
        layout[LSTM, name, "b"] = shape[1:]
    for name in ("hidden", "cell"):
        layout["lstm_init_state", name] = (1, hidden_size)
    return layout


def bank_layout(bank_size: int) -> Layout:
    """The arrays of a bank of MLPs, whose first layers lie in blocks of features."""
    layout: Layout = {}
    for i, width in enumerate(WIDTHS):
        layout[*MLP, f"w0__{i}"] = (bank_size, width, HIDDEN)
    layout[*MLP, "b0"] = (bank_size, HIDDEN)
    layout[*MLP, "w1"] = (bank_size, HIDDEN, HIDDEN)
    layout[*MLP, "b1"] = (bank_size, HIDDEN)
    layout[*MLP, "w2"] = (bank_size, HIDDEN, 3)
    layout[*MLP, "b2"] = (bank_size, 3)
    return layout


def scheduler_theta(arrays: Mapping[Keys, Tensor]) -> dict[str, Tensor]:
    """The part of theta that is called ``scheduler``."""
    # theirs: write, candidate, forget, read, and 1 is added to the forget gate; ours puts forget
    # first and has the 1 in its bias
    forget_first = (2, 0, 3, 1)
    weight = _reordered(arrays[LSTM, "rnn/linear", "w"], forget_first)
    bias = _reordered(arrays[LSTM, "rnn/linear", "b"], forget_first)
    bias[: len(bias) // 4] += 1
    states = [arrays["lstm_init_state", name][0] for name in ("hidden", "cell")]
    return {
        "scheduler.start": torch.stack(states),
        "scheduler.cell.weight": weight,
        "scheduler.cell.bias": bias,
        **_linear(arrays, "linear_2", "scheduler.direct"),
        **_linear(arrays, "linear_1", "scheduler.pooled"),
        **_linear(arrays, "step_size", "scheduler.rate"),
    }


def controls_theta(arrays: Mapping[Keys, Tensor]) -> dict[str, Tensor]:
    """The part of theta that is called ``controls``."""
    return _linear(arrays, "rnn_to_controls", "controls")


def bank_theta(arrays: Mapping[Keys, Tensor]) -> dict[str, Tensor]:
    """The part of theta that is called ``bank``, a leading B on every tensor."""
    theta = {}
    for i, (weight, bias) in enumerate(_mlp(arrays)):
        theta[f"bank.weights.{i}"] = weight
        theta[f"bank.biases.{i}"] = bias
    return theta


def function_theta(arrays: Mapping[Keys, Tensor]) -> dict[str, Tensor]:
    """The part of theta that is called ``function``, of a bank of one."""
    theta = {}
    for i, (weight, bias) in enumerate(_mlp(arrays)):
        theta[f"function.layers.{i}.weight"] = weight[0]
        theta[f"function.layers.{i}.bias"] = bias[0]
    return theta


def _mlp(arrays: Mapping[Keys, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer: two of the three outputs act."""
    blocks = [arrays[*MLP, f"w0__{i}"] for i in range(len(WIDTHS))]
    return [
        (torch.cat(blocks, 1), arrays[*MLP, "b0"]),
        (arrays[*MLP, "w1"], arrays[*MLP, "b1"]),
        (arrays[*MLP, "w2"][..., :2], arrays[*MLP, "b2"][..., :2]),
    ]


def _linear(arrays: Mapping[Keys, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {
        f"{ours}.weight": arrays[LSTM, theirs, "w"].T,
        f"{ours}.bias": arrays[LSTM, theirs, "b"],
    }


def _reordered(gates: Tensor, order: tuple[int, ...]) -> Tensor:
    parts = gates.chunk(4, -1)
    return torch.cat([parts[i] for i in order], -1)

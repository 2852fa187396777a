"""Numbers of meta-parameters that the UNF paper and its code give."""

import torch

from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec, infer_permutation_spec
from learned_opt.unf import Pointwise
from tasks.networks.cnn import CNN
from tasks.networks.mlp import MLP
from tasks.networks.recurrent import RecurrentNetwork, RNNCell
from tasks.networks.transformer import Transformer


def num_theta(optimizer: UNFOptimizer) -> int:
    return sum(parameter.numel() for parameter in optimizer.parameters())


def test_published_parameter_counts() -> None:
    """Source: papers.md 1.4.

    The CNN's published 7,369 contains a clash of two names, the exact spec has 5,513.
    """
    mlp = PermutationSpec(*MLP((1, 8, 8), 10, (32,)).permutation_axes())
    assert num_theta(UNFOptimizer(mlp)) == 3783
    assert num_theta(UNFOptimizer(mlp, head=Pointwise)) == 2788
    cnn = PermutationSpec(*CNN((3, 16, 16), 10).permutation_axes())
    assert num_theta(UNFOptimizer(cnn)) == 5513
    authors = PermutationSpec(
        {
            # the height axis shares the name of the input channels
            "conv0.w": ("0", "-2", "0", "1"),
            "conv0.b": ("1",),
            "conv1.w": ("-1", "-3", "1", "2"),
            "conv1.b": ("2",),
            "linear.w": ("2", "3"),
            "linear.b": ("3",),
        }
    )
    assert num_theta(UNFOptimizer(authors)) == 7369


def test_published_counts_of_sequence_networks() -> None:
    """papers.md 1.3 and 1.4, from the authors' specs: every tensor as (input axis, output axis)."""
    rnn = {
        "embed": ("v", "e"),
        "read.w": ("e", "h"),
        "read.b": ("h",),
        "keep.w": ("h", "h"),
        "keep.b": ("h",),
        "head.w": ("h", "v"),
        "head.b": ("v",),
        "start": ("-2", "h"),
    }
    optimizer = UNFOptimizer(PermutationSpec(rnn))
    assert optimizer.function.layers[-1].num_basis == 165
    assert num_theta(optimizer) == 8043

    transformer: dict[str, tuple[str, ...]] = {"embed": ("-1", "0")}
    for block, (inner, hidden, after) in enumerate([("0", "1", "2"), ("2", "3", "4")]):
        pairs = {
            "q": (inner, hidden),
            "k": (inner, hidden),
            "v": (inner, hidden),
            "out": (hidden, inner),
        }
        pairs |= {"mlp_in": (inner, hidden), "mlp_out": (hidden, after)}
        for name, axes in pairs.items():
            transformer |= {f"{block}.{name}.w": axes, f"{block}.{name}.b": axes[1:]}
        for norm in ("norm1", "norm2"):
            transformer |= {f"{block}.{norm}.scale": (inner,), f"{block}.{norm}.offset": (inner,)}
    transformer |= {
        "norm.scale": ("4",),
        "norm.offset": ("4",),
        "head.w": ("4", "-2"),
        "head.b": ("-2",),
    }
    optimizer = UNFOptimizer(PermutationSpec(transformer))
    assert optimizer.function.layers[-1].num_basis == 1918
    assert num_theta(optimizer) == 64168


def test_counts_of_inferred_exact_specs() -> None:
    """The same networks with their true symmetries.

    Vocabularies of input and output are told apart.
    """
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    irnn = RecurrentNetwork((8,), 50, RNNCell)
    assert num_theta(UNFOptimizer(infer_permutation_spec(irnn, tokens))) == 5929
    transformer = Transformer((8,), 50, head_size=32)
    assert num_theta(UNFOptimizer(infer_permutation_spec(transformer, tokens))) == 85417

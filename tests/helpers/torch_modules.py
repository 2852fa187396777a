"""Plain PyTorch modules, many of them torch's own, for the tests of inferred permutation specs.

Each row: a constructor, example inputs, and how many free permutation names the inferred spec must
have.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.prefix_tree_linear import PrefixTreeLinear
from tasks.networks.quadratic import QuadraticConv2d, QuadraticLinear
from tests.helpers import wirings
from tests.helpers.wirings import Wire, block, recurrent


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    num_free: int
    maximal: bool = True


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


MANY_VECTORS = draw(60, 4)
VECTORS = draw(3, 4)
SEQUENCES = draw(2, 5, 4)
IMAGES = draw(2, 3, 8, 8)
TOKENS = torch.tensor([[0, 3, 1, 6], [2, 2, 5, 4]])

linear = nn.Linear
conv = nn.Conv2d

CASES: dict[str, Case] = {
    "linear": Case(lambda: linear(4, 3), (VECTORS,), 0),
    "mlp": Case(
        lambda: nn.Sequential(linear(4, 6), nn.ReLU(), linear(6, 5), nn.Tanh(), linear(5, 3)),
        (VECTORS,),
        2,
    ),
    "residual_mlp": Case(
        lambda: Wire(
            wirings.residual,
            embed=linear(4, 6),
            first=block(6, 5),
            second=block(6, 7),
            norm=nn.LayerNorm(6),
            head=linear(6, 2),
        ),
        (VECTORS,),
        3,
    ),
    "conv_bn_flatten": Case(
        lambda: nn.Sequential(
            conv(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), linear(180, 4)
        ),
        (IMAGES,),
        1,
    ),
    "conv_pool": Case(
        lambda: nn.Sequential(
            conv(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), conv(5, 4, 3), nn.AdaptiveAvgPool2d(1)
        ),
        (IMAGES,),
        1,
    ),
    "grouped_conv": Case(
        lambda: nn.Sequential(
            conv(3, 8, 3), nn.ReLU(), conv(8, 12, 3, groups=4), nn.ReLU(), conv(12, 2, 1)
        ),
        (IMAGES,),
        3,
    ),
    "depthwise_conv": Case(
        lambda: nn.Sequential(
            conv(3, 8, 1), nn.ReLU(), conv(8, 8, 3, groups=8), nn.ReLU(), conv(8, 2, 1)
        ),
        (IMAGES,),
        1,
    ),
    "transposed_conv": Case(
        lambda: nn.Sequential(
            conv(3, 5, 3, 2), nn.ReLU(), nn.ConvTranspose2d(5, 4, 3, 2), nn.ReLU(), conv(4, 2, 1)
        ),
        (IMAGES,),
        2,
    ),
    "group_norm": Case(
        lambda: nn.Sequential(conv(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), conv(8, 2, 1)),
        (IMAGES,),
        2,
    ),
    "resnet_block": Case(
        lambda: Wire(
            wirings.resnet_block,
            stem=conv(3, 5, 3),
            conv1=conv(5, 6, 3, padding=1),
            bn1=nn.BatchNorm2d(6),
            conv2=conv(6, 7, 3, padding=1),
            bn2=nn.BatchNorm2d(7),
            shortcut=conv(5, 7, 1),
            head=linear(7, 2),
        ),
        (IMAGES,),
        3,
    ),
    "unet_skip": Case(
        lambda: Wire(
            wirings.unet,
            down=conv(3, 4, 3, padding=1),
            low=conv(4, 4, 3, padding=1),
            out=conv(8, 2, 1),
        ),
        (IMAGES,),
        2,  # the halves of the joined axis permute each by its own permutation
    ),
    "squeeze_excite": Case(
        lambda: Wire(
            wirings.squeeze_excite,
            conv=conv(3, 6, 3),
            squeeze=linear(6, 4),
            up=linear(4, 6),
            head=linear(6, 2),
        ),
        (IMAGES,),
        2,
    ),
    "vanilla_rnn": Case(lambda: recurrent(nn.RNN(4, 6, batch_first=True)), (SEQUENCES,), 1),
    "irnn_loop": Case(
        lambda: Wire(wirings.irnn, read=linear(4, 6), keep=linear(6, 6), head=linear(6, 2)),
        (SEQUENCES,),
        1,
    ),
    "lstm": Case(lambda: recurrent(nn.LSTM(4, 6, batch_first=True)), (SEQUENCES,), 1),
    "lstm_2_layers": Case(
        lambda: recurrent(nn.LSTM(4, 6, num_layers=2, batch_first=True)), (SEQUENCES,), 2
    ),
    "gru": Case(lambda: recurrent(nn.GRU(4, 6, batch_first=True)), (SEQUENCES,), 1),
    "packed_attention": Case(
        lambda: Wire(
            wirings.attention,
            embed=linear(4, 6),
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        4,  # values permute with queries and keys, since all three lie in one tensor
    ),
    "separate_heads": Case(
        lambda: Wire(
            wirings.separate_heads,
            embed=linear(4, 6),
            q=linear(6, 6),
            k=linear(6, 6),
            v=linear(6, 6),
            out=linear(6, 6),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        5,
        # softmax does not see a constant added to all keys, so the key bias may move alone
        maximal=False,
    ),
    "encoder_layer": Case(
        lambda: Wire(
            lambda m, x: m.head(m.layer(m.embed(x))),
            embed=linear(4, 6),
            layer=nn.TransformerEncoderLayer(6, 2, 5, batch_first=True),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        4,
    ),
    "causal_pre_norm": Case(
        lambda: Wire(
            wirings.causal,
            embed=linear(4, 6),
            layer=nn.TransformerEncoderLayer(
                6, 2, 5, batch_first=True, norm_first=True, activation="gelu"
            ),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        4,
    ),
    "decoder_layer": Case(
        lambda: Wire(
            lambda m, x: m.head(m.layer(m.embed(x), m.read(x))),
            embed=linear(4, 6),
            read=linear(4, 6),
            layer=nn.TransformerDecoderLayer(6, 2, 5, batch_first=True),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        6,
    ),
    "cross_attention": Case(
        lambda: Wire(
            wirings.cross,
            start=nn.Embedding(3, 6),
            read=linear(4, 6),
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        5,
    ),
    "tied_embedding": Case(
        lambda: Wire(wirings.tied, embed=nn.Embedding(7, 6), mix=linear(6, 6)), (TOKENS,), 1
    ),
    "embedding_bag_of_words": Case(
        lambda: nn.Sequential(nn.Embedding(7, 6), nn.LayerNorm(6), nn.Flatten(), linear(24, 3)),
        (TOKENS,),
        1,
    ),
    "mlp_mixer": Case(
        lambda: Wire(
            wirings.mixer,
            embed=linear(4, 6),
            tokens_in=linear(5, 7),
            tokens_out=linear(7, 5),
            channels_in=linear(6, 8),
            channels_out=linear(8, 6),
            head=linear(6, 2),
        ),
        (SEQUENCES,),
        3,
    ),
    "mixture_of_experts": Case(
        lambda: Wire(
            wirings.experts,
            embed=linear(4, 6),
            router=linear(6, 2),
            one=linear(6, 5),
            two=linear(6, 5),
            head=linear(5, 2),
        ),
        (VECTORS,),
        2,
    ),
    "nearest_prototype": Case(
        lambda: NearestPrototypeMoE(4, 3, num_experts=5, width=6), (MANY_VECTORS,), 2
    ),
    "soft_prototypes": Case(
        lambda: nn.Sequential(
            linear(4, 6), NearestPrototypeMoE(6, 3, num_experts=5, depth=1, temperature=1.0)
        ),
        (MANY_VECTORS,),
        2,
    ),
    "prototype_tree": Case(
        lambda: NearestPrototypeMoE(4, 3, num_experts=5, width=6, tree_arity=2), (MANY_VECTORS,), 1
    ),
    "prefix_tree": Case(
        lambda: nn.Sequential(linear(4, 6), nn.Tanh(), PrefixTreeLinear(6, 3, depth=2)),
        (MANY_VECTORS,),
        1,
    ),
    "low_rank_prefix_tree": Case(
        lambda: nn.Sequential(linear(4, 6), nn.Tanh(), PrefixTreeLinear(6, 3, depth=2, rank=2)),
        (MANY_VECTORS,),
        2,
    ),
    "argmax_as_a_number": Case(
        lambda: Wire(wirings.winner_as_number, read=linear(4, 6), out=linear(6, 2)),
        (MANY_VECTORS,),
        0,
    ),
    "bilinear": Case(
        lambda: Wire(
            wirings.bilinear,
            left=linear(4, 5),
            right=linear(4, 6),
            pair=nn.Bilinear(5, 6, 7),
            head=linear(7, 2),
        ),
        (VECTORS,),
        3,
    ),
    "glu": Case(lambda: Wire(wirings.gated, read=linear(4, 12), out=linear(6, 2)), (VECTORS,), 1),
    "swiglu": Case(
        lambda: Wire(wirings.swiglu, gate=linear(4, 6), up=linear(4, 6), out=linear(6, 2)),
        (VECTORS,),
        1,
    ),
    "weight_norm": Case(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(linear(4, 6)), nn.ReLU(), linear(6, 2)
        ),
        (VECTORS,),
        1,
    ),
    "prelu": Case(lambda: nn.Sequential(linear(4, 6), nn.PReLU(6), linear(6, 2)), (VECTORS,), 1),
    "quadratic": Case(
        lambda: nn.Sequential(
            QuadraticLinear(4, 6),
            nn.ReLU(),
            QuadraticLinear(6, 5, terms="product+squares"),
            linear(5, 2),
        ),
        (VECTORS,),
        2,
    ),
    "quadratic_conv": Case(
        lambda: nn.Sequential(
            QuadraticConv2d(3, 5, 3),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            QuadraticConv2d(5, 4, 3),
            conv(4, 2, 1),
        ),
        (IMAGES,),
        2,
    ),
    "sort": Case(
        # a true symmetry that no rule sees: sorting forgets the order of its inputs
        lambda: Wire(wirings.sorted_units, read=linear(4, 6), out=linear(6, 2)),
        (VECTORS,),
        0,
        maximal=False,
    ),
    "cumsum": Case(
        lambda: Wire(wirings.cumulative, read=linear(4, 6), out=linear(6, 2)), (VECTORS,), 0
    ),
}

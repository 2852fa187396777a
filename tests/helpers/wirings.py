"""Functions that wire submodules together, for the modules of ``torch_modules.py``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Wire(nn.Module):
    """Named submodules and a function that wires them."""

    def __init__(self, function: Callable, **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def residual(m: nn.Module, x: Tensor) -> Tensor:
    h = m.embed(x)
    for block in (m.first, m.second):
        h = h + block(h)
    return m.head(m.norm(h))


def block(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
    )


def last_state(m: nn.Module, x: Tensor) -> Tensor:
    return m.head(m.cell(x)[0][:, -1])


def recurrent(cell: nn.Module) -> nn.Module:
    return Wire(last_state, cell=cell, head=nn.Linear(6, 2))


def irnn(m: nn.Module, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 6, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = torch.relu(m.read(x[:, t]) + m.keep(h))
    return m.head(h)


def attention(m: nn.Module, x: Tensor) -> Tensor:
    h = m.embed(x)
    return m.head(m.attention(h, h, h, need_weights=False)[0])


def causal(m: nn.Module, x: Tensor) -> Tensor:
    h = m.embed(x)
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=h.dtype)
    return m.head(m.layer(h, src_mask=mask, is_causal=True))


def separate_heads(m: nn.Module, x: Tensor) -> Tensor:
    h = m.embed(x)
    q, k, v = (f(h).unflatten(-1, (2, 3)).transpose(1, 2) for f in (m.q, m.k, m.v))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return m.head(m.out(mixed.transpose(1, 2).flatten(2)))


def cross(m: nn.Module, x: Tensor) -> Tensor:
    latents = m.start.weight.unsqueeze(0).expand(x.shape[0], -1, -1)
    return m.head(m.attention(latents, m.read(x), m.read(x), need_weights=False)[0].mean(1))


def unet(m: nn.Module, x: Tensor) -> Tensor:
    top = torch.relu(m.down(x))
    low = torch.relu(m.low(nn.functional.max_pool2d(top, 2)))
    return m.out(torch.cat([top, nn.functional.interpolate(low, scale_factor=2)], 1))


def squeeze_excite(m: nn.Module, x: Tensor) -> Tensor:
    h = torch.relu(m.conv(x))
    gate = torch.sigmoid(m.up(torch.relu(m.squeeze(h.mean((2, 3))))))
    return m.head((h * gate[:, :, None, None]).mean((2, 3)))


def mixer(m: nn.Module, x: Tensor) -> Tensor:
    h = m.embed(x)
    h = h + m.tokens_out(torch.relu(m.tokens_in(h.transpose(1, 2)))).transpose(1, 2)
    h = h + m.channels_out(torch.relu(m.channels_in(h)))
    return m.head(h.mean(1))


def experts(m: nn.Module, x: Tensor) -> Tensor:
    h = torch.relu(m.embed(x))
    weights = m.router(h).softmax(-1)
    outputs = torch.stack([m.one(h), m.two(h)], -1)
    return m.head((outputs * weights.unsqueeze(-2)).sum(-1))


def winner_as_number(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(m.read(x) * m.read(x).argmax(-1, keepdim=True))


def tied(m: nn.Module, tokens: Tensor) -> Tensor:
    return torch.tanh(m.mix(m.embed(tokens))) @ m.embed.weight.T


def bilinear(m: nn.Module, x: Tensor) -> Tensor:
    return m.head(m.pair(torch.tanh(m.left(x)), torch.tanh(m.right(x))))


def gated(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(nn.functional.glu(m.read(x), -1))


def swiglu(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(nn.functional.silu(m.gate(x)) * m.up(x))


def sorted_units(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(m.read(x).sort(-1).values)


def cumulative(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(m.read(x).cumsum(-1))


def resnet_block(m: nn.Module, x: Tensor) -> Tensor:
    h = torch.relu(m.stem(x))
    h = torch.relu(m.bn2(m.conv2(torch.relu(m.bn1(m.conv1(h))))) + m.shortcut(h))
    return m.head(h.mean((2, 3)))

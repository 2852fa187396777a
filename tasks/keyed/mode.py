"""A block in which the code of any module draws from a key."""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from tasks.keyed import dropout, noise, written_out
from tasks.keyed.draws import Draws


class KeyedDraws(TorchFunctionMode):
    """Dropout and noise of the code inside of the block come from a key.

    A forward pass becomes a pure function, through which vmap, grad and compile go: torch's
    generator is neither read nor moved on. Attention and recurrences are written out.
    Operations without a keyed form, as ``torch.randperm``, and those that bring a generator of
    their own stay what they are.

    Args:
        key: scalar int64; None puts the mean of every draw in its stead: dropout keeps all, and
            normal numbers are 0.

    Attributes:
        draws: counts what was drawn.

    >>> key = torch.tensor(5)
    >>> with KeyedDraws(key):
    ...     first = torch.nn.functional.dropout(torch.ones(4))
    >>> with KeyedDraws(key):
    ...     again = torch.nn.functional.dropout(torch.ones(4))
    >>> torch.equal(first, again)
    True
    """

    def __init__(self, key: Tensor | None) -> None:
        super().__init__()
        self.draws = Draws(key)

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        keyed = KEYED.get(func)
        has_generator = kwargs.get("generator") is not None
        if keyed is not None and not has_generator and not _is_packed(args):
            return keyed(self.draws, *args, **kwargs)

        if getattr(func, "__globals__", None) is vars(torch.nn.functional):
            with self:  # it may draw inside
                return _opened(func)(*args, **kwargs)
        return func(*args, **kwargs)


def _is_packed(args: tuple[Any, ...]) -> bool:
    """Whether these are a recurrence's arguments for packed sequences.

    Their second one tells the sizes of the batches, and the weights come fourth.
    """
    return len(args) > 3 and isinstance(args[3], list | tuple)


@cache
def _opened(func: FunctionType) -> FunctionType:
    """The same function, but one that does not hand itself to the mode once more.

    Torch leaves a mode out inside of a function that the mode was called for.
    """
    never = {}
    for name in func.__globals__:
        if name.startswith("has_torch_function"):
            never[name] = lambda *_: False

    opened = FunctionType(
        func.__code__,
        {**func.__globals__, **never},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The form that writes into its first argument."""

    def write(draws: Draws, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return input.copy_(function(draws, input, *args, **kwargs))

    return write


KEYED: dict[Any, Callable[..., Any]] = {
    torch.dropout: dropout.dropout,
    torch.dropout_: _in_place(dropout.dropout),
    torch.feature_dropout: dropout.feature_dropout,
    torch.feature_dropout_: _in_place(dropout.feature_dropout),
    torch.alpha_dropout: dropout.alpha_dropout,
    torch.alpha_dropout_: _in_place(dropout.alpha_dropout),
    torch.feature_alpha_dropout: dropout.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _in_place(dropout.feature_alpha_dropout),
    torch.rand: noise.rand,
    torch.randn: noise.randn,
    torch.rand_like: noise.rand_like,
    torch.randn_like: noise.randn_like,
    torch.normal: noise.normal,
    torch.bernoulli: noise.bernoulli,
    torch.empty: noise.empty,
    Tensor.bernoulli: noise.bernoulli,
    Tensor.bernoulli_: noise.bernoulli_,
    Tensor.normal_: noise.normal_,
    Tensor.uniform_: noise.uniform_,
    Tensor.exponential_: noise.exponential_,
    torch.nn.functional.scaled_dot_product_attention: written_out.attention,
    torch.lstm: written_out.lstm,
    torch.gru: written_out.gru,
    torch.rnn_tanh: written_out.rnn_tanh,
    torch.rnn_relu: written_out.rnn_relu,
}

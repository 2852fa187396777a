"""Attention masks of ``nn.TransformerEncoder`` and its kin, which look at their values."""

from functools import partial
from typing import Any

from torch import nn

# argument by which a layer is told that its mask is causal, and its number
HINTS = {nn.TransformerEncoder: ("is_causal", 3), nn.TransformerDecoder: ("tgt_is_causal", 6)}


def leave_masks_alone(module: nn.Module) -> None:
    """Keep the layers of a module from comparing their masks with a causal one.

    They do where nobody says whether a mask is causal, for faster kernels, and decide by what
    they see, which no trace can follow. A mask that is there is applied either way.

    Args:
        module: its layers are prepared, in place.
    """
    for layer in module.modules():
        for kind, (name, number) in HINTS.items():
            if isinstance(layer, kind):
                layer.register_forward_pre_hook(
                    partial(_not_causal, name, number), with_kwargs=True
                )


def _not_causal(
    name: str, number: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) <= number and kwargs.get(name) is None:
        return args, {**kwargs, name: False}
    return args, kwargs

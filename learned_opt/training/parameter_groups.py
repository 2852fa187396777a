"""Blocks of theta with settings of the outer optimizer for each, as its parameter groups."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from learned_opt.optimizers.blocks import BLOCKS, block_of

NAME = "name"  # key of a parameter group that holds its pattern; Lightning reads it, too
Settings = Mapping[str, Any]  # of an optimizer: lr, betas, weight_decay and the like


def parameter_groups(
    theta: Mapping[str, Tensor],
    blocks: Mapping[str, Settings],
    constructor: Callable[..., torch.optim.Optimizer],
) -> list[dict[str, Any]]:
    """The parameter groups of an outer optimizer, one for each pattern, in their order.

    A tensor of theta belongs to the first pattern that matches it.

    Args:
        theta: meta-parameters, by name.
        blocks: pattern -> settings that differ from those of the optimizer. A pattern is the name
            of a tensor, wildcards allowed, or one of the blocks ``scalars``, ``pointwise`` and
            ``equivariant``.
        constructor: ``(parameters, **settings)`` of the optimizer, which checks them.

    Raises:
        ValueError: a pattern takes no tensor, a tensor belongs to no pattern, or the optimizer
            refuses the settings of a block.

    >>> theta = {"log_lr": torch.zeros(()), "weight": torch.zeros(2, 3)}
    >>> groups = parameter_groups(theta, {"scalars": {}, "*": {"lr": 0.1}}, torch.optim.SGD)
    >>> [(group["name"], group.get("lr"), len(group["params"])) for group in groups]
    [('scalars', None, 1), ('*', 0.1, 1)]
    """
    members: dict[str, list[Tensor]] = {pattern: [] for pattern in blocks}
    left_over = []
    for name, tensor in theta.items():
        pattern = _first_match(blocks, name, tensor)
        if pattern is None:
            left_over.append(name)
        else:
            members[pattern].append(tensor)

    for pattern, tensors in members.items():
        if not tensors:
            raise ValueError(_takes_nothing(pattern, theta))
    if left_over:
        raise ValueError(
            f"blocks must take every tensor of theta, but none of {', '.join(blocks)} takes "
            f"{', '.join(left_over)}; a last block '*' takes all others."
        )

    groups = []
    for pattern, settings in blocks.items():
        plain = _plain(settings)
        _check(pattern, plain, constructor)
        groups.append({"params": members[pattern], NAME: pattern, **plain})
    return groups


def _first_match(blocks: Mapping[str, Settings], name: str, tensor: Tensor) -> str | None:
    for pattern in blocks:
        if _matches(pattern, name, tensor):
            return pattern
    return None


def _matches(pattern: str, name: str, tensor: Tensor) -> bool:
    return fnmatchcase(name, pattern) or pattern == block_of(name, tensor)


def _takes_nothing(pattern: str, theta: Mapping[str, Tensor]) -> str:
    """Why a block has no tensor."""
    if any(_matches(pattern, name, tensor) for name, tensor in theta.items()):
        return f"blocks[{pattern}] takes no tensor of theta: blocks before it take all that match."
    return (
        f"blocks[{pattern}] names no tensor of theta, and no block of it ({', '.join(BLOCKS)}): "
        f"{', '.join(theta)}."
    )


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings of a block; YAML has no tuples, and torch takes nothing else for betas."""
    plain = {}
    for key, value in settings.items():
        plain[key] = tuple(value) if isinstance(value, list) else value
    return plain


def _check(
    pattern: str, settings: Settings, constructor: Callable[..., torch.optim.Optimizer]
) -> None:
    """Have the optimizer check the settings: those of parameter groups it takes as they are."""
    try:
        constructor([torch.nn.Parameter(torch.zeros(1))], **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"blocks[{pattern}] of the outer optimizer: {error}.") from error

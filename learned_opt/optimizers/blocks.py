"""The blocks of theta: groups of its tensors that do the same kind of work.

Figures by block tell where a meta-gradient has signal, and where it is noise.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor

SCALARS = "scalars"  # log rates, decays, weights of parts
EQUIVARIANT = "equivariant"  # coefficients that mix entries of tensors: the table of a layer
POINTWISE = "pointwise"  # all other tensors: layers that see one entry of a tensor at a time
BLOCKS = (SCALARS, POINTWISE, EQUIVARIANT)

# parts of the names in theta that equivariant layers give to their coefficients
PARTS_OF_TABLES = {"equivariant", "weights", "biases", "own", "pooled"}


def block_of(name: str, tensor: Tensor) -> str:
    """The block of one tensor of theta.

    Args:
        name: in theta.
        tensor: with the shape that it has there.

    >>> import torch
    >>> block_of("function.layers.3.equivariant.table", torch.zeros(183, 6, 2))
    'equivariant'
    >>> block_of("log_alpha", torch.zeros(()))
    'scalars'
    >>> block_of("function.layers.0.weight", torch.zeros(19, 32))
    'pointwise'
    """
    if tensor.ndim == 0:
        return SCALARS
    return EQUIVARIANT if PARTS_OF_TABLES & set(name.split(".")) else POINTWISE


def matches(pattern: str, name: str, tensor: Tensor) -> bool:
    """Whether a pattern is the name of a tensor of theta, wildcards allowed, or its block.

    Args:
        pattern: as people write it in a config.
        name: of the tensor in theta.
        tensor: with the shape that it has there.
    """
    return fnmatchcase(name, pattern) or pattern == block_of(name, tensor)


def names_by_block(theta: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names of the tensors in every block that theta has, in the order of ``BLOCKS``.

    >>> import torch
    >>> names_by_block({"weight": torch.zeros(2, 3), "log_lr": torch.zeros(())})
    {'scalars': ['log_lr'], 'pointwise': ['weight']}
    """
    names: dict[str, list[str]] = {}
    for block in BLOCKS:
        members = [name for name, tensor in theta.items() if block_of(name, tensor) == block]
        if members:
            names[block] = members
    return names

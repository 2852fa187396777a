"""What a user hands to a learned optimizer: models, parameters, losses."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer

# class of a wrapper -> its attribute that holds the module inside
WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


class _NoLoss(Tensor):
    """Stands for a loss that nobody gave; may be handed on, but not used."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ValueError(
            "this meta-optimizer reads the training loss: call step(loss=loss) or step(closure)."
        )


NO_LOSS = torch.zeros(()).as_subclass(_NoLoss)


class Step:
    """``MetaOptimizer.forward`` with or without loss and factors, as one function to compile.

    Args:
        meta_optimizer: the optimizer on its weight space.
    """

    def __init__(self, meta_optimizer: MetaOptimizer) -> None:
        self.meta_optimizer = meta_optimizer

    def __call__(self, grads: Tree, state: Tree, params: Tree, more: Tree) -> tuple[Tree, Tree]:
        """One step: updates and the state behind it; more may hold ``loss`` and ``factors``."""
        factors = [more["factors"]] if "factors" in more else []
        loss = more.get("loss", NO_LOSS)
        return self.meta_optimizer(grads, state, params, loss, *factors)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside of DDP and ``torch.compile``, which prefix the names of its parameters.

    >>> type(unwrap(nn.DataParallel(nn.Linear(1, 1)))).__name__
    'Linear'
    """
    while (attribute := WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, attribute)
    return module


def check_group(param_group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check the rates of a param group.

    Args:
        param_group: of ``torch.optim``.
        defaults: of what it leaves out.

    Raises:
        ValueError: one is out of its range.
    """
    for name, low, high in (("lr", 0, float("inf")), ("weight_decay", 0, 1)):
        value = param_group.get(name, defaults[name])
        if not low <= value <= high:
            raise ValueError(f"{name} must lie between {low} and {high}, got {value}.")


def check_parameters(parameters: Sequence[tuple[str, Tensor]]) -> None:
    """Check that parameters can be trained together.

    Args:
        parameters: names and tensors.

    Raises:
        ValueError: one is sharded, or of another dtype or device than the first.
    """
    for name, param in parameters:
        _check_parameter(name, param, first=parameters[0][1])


def _check_parameter(name: str, param: Tensor, first: Tensor) -> None:
    # DTensor of FSDP 2, flat parameters of FSDP 1
    if hasattr(param, "to_local") or getattr(param, "_fsdp_flattened", False):
        raise ValueError(
            f"parameter {name} is sharded (FSDP): statistics over a tensor would be those of a "
            "shard. Use DDP, where every rank has whole tensors."
        )
    if param.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"parameter {name} must be float32 or float64, got {param.dtype}; "
            "keep float32 weights and use torch.autocast."
        )
    if (param.dtype, param.device) != (first.dtype, first.device):
        raise ValueError(
            "all parameters must have one dtype and device, got "
            f"{param.dtype} on {param.device} ({name}) and {first.dtype} on {first.device}."
        )


def fingerprint(meta_optimizer: MetaOptimizer) -> str:
    """Short hash of an optimizer's class and theta, which a ``state_dict`` keeps."""
    digest = hashlib.sha256(type(meta_optimizer).__name__.encode())
    for name, value in meta_optimizer.named_parameters():
        numbers = value.detach().double().cpu().contiguous().numpy()
        digest.update(name.encode() + numbers.tobytes())
    return digest.hexdigest()[:12]

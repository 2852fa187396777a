"""What a user hands to a learned optimizer: models and parameters."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from learned_opt.deploy.precision import TYPES
from learned_opt.deploy.sharded import check_mesh, is_sharded
from learned_opt.deploy.weight_space import Slot
from learned_opt.optimizers.base import MetaOptimizer

# class of a wrapper -> its attribute that holds the module inside
WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
}

FLAT = (
    "FullyShardedDataParallel flattens tensors, so that their shapes are lost: use fully_shard "
    "(FSDP 2) or DDP."
)


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


def check_model(module: nn.Module, separable: bool) -> None:
    """Check, before anything is traced, that the parameters of a model can be trained.

    Args:
        module: the model.
        separable: whether each parameter can be advanced by itself.

    Raises:
        ValueError: see ``check_parameters``.
    """
    slots = [Slot(name, param, {}) for name, param in module.named_parameters()]
    check_parameters([slot for slot in slots if slot.param.requires_grad], separable)
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules()):
        raise ValueError(FLAT)


def check_parameters(slots: Sequence[Slot], separable: bool) -> None:
    """Check that parameters can be trained.

    Args:
        slots: the parameters.
        separable: whether each is advanced by itself; all must be on one device otherwise, and
            whole.

    Raises:
        ValueError: one is flattened, or has no shape yet, or is of a type that cannot be trained;
            or devices differ, or one is sharded, where they must not.
    """
    for slot in slots:
        _check_parameter(slot.name, slot.param)
        first = slots[0].param
        if not separable and slot.param.device != first.device:
            raise ValueError(
                "all parameters must be on one device for this meta-optimizer, got "
                f"{slot.param.device} ({slot.name}) and {first.device}."
            )
        if not separable and is_sharded(slot.param):
            raise ValueError(
                f"parameter {slot.name} is sharded, but this meta-optimizer reads all tensors at "
                "once: use DDP, or a meta-optimizer that treats each tensor by itself."
            )


def _check_parameter(name: str, param: Tensor) -> None:
    if is_sharded(param):
        check_mesh(name, param)
    elif hasattr(param, "to_local") or getattr(param, "_fsdp_flattened", False):
        raise ValueError(f"parameter {name} is sharded. {FLAT}")
    if isinstance(param, nn.UninitializedParameter):
        raise ValueError(
            f"parameter {name} has no shape yet: run the model once before its optimizer is made."
        )
    if param.dtype not in TYPES:
        types = ", ".join(str(dtype).removeprefix("torch.") for dtype in TYPES)
        raise ValueError(f"parameter {name} must be one of {types}, got {param.dtype}.")


def fingerprint(meta_optimizer: MetaOptimizer) -> str:
    """Short hash of an optimizer's class and theta, which a ``state_dict`` keeps."""
    digest = hashlib.sha256(type(meta_optimizer).__name__.encode())
    for name, value in meta_optimizer.named_parameters():
        numbers = value.detach().double().cpu().contiguous().numpy()
        digest.update(name.encode() + numbers.tobytes())
    return digest.hexdigest()[:12]

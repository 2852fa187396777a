"""Parameters that are spread over processes: DTensor, of FSDP 2 (``fully_shard``) and others.

Each tensor has one process that advances it, which holds its whole state: statistics over a tensor
and directions of matrices are those of one process, to rounding. Gradients and weights are gathered
there, and the new weights sent back. Processes take tensors in turns of about equal size.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from learned_opt.core.tree import tree_map
from learned_opt.deploy.weight_space import BLOCK, Slot

States = MutableMapping[Tensor, Any]


def is_sharded(param: Tensor) -> bool:
    """Whether a parameter is spread over processes."""
    return isinstance(param, DTensor)


def whole(value: Any) -> Any:
    """All of a tensor; all processes of its mesh take part where it is sharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def owners(slots: Sequence[Slot]) -> dict[str, int]:
    """Name of a sharded parameter -> the process that advances it.

    In order, each goes to the process of its mesh that has the fewest entries so far: parameters
    that are added later move none.
    """
    num_entries: dict[int, int] = {}
    chosen = {}
    for slot in slots:
        if not isinstance(slot.param, DTensor):
            continue
        ranks = slot.param.device_mesh.mesh.flatten().tolist()
        rank = min(ranks, key=lambda rank: num_entries.get(rank, 0))
        num_entries[rank] = num_entries.get(rank, 0) + slot.param.numel()
        chosen[slot.name] = rank
    return chosen


def rounds(slots: Sequence[Slot]) -> Iterator[list[Slot]]:
    """Sharded parameters that are gathered together, so many that all processes have work."""
    limit = BLOCK * dist.get_world_size() if dist.is_initialized() else BLOCK
    together: list[Slot] = []
    num_entries = 0
    for slot in slots:
        if together and num_entries + slot.param.numel() > limit:
            yield together
            together = []
            num_entries = 0
        together.append(slot)
        num_entries += slot.param.numel()
    if together:
        yield together


def gathered(slot: Slot, is_here: bool) -> Slot | None:
    """The whole parameter with its gradient; all processes of the mesh take part.

    Args:
        slot: a sharded parameter that has a gradient.
        is_here: whether this process advances it; None is returned to the others.
    """
    values = whole(slot.param.detach())
    gradient = whole(slot.param.grad)
    if not is_here:
        return None
    param = nn.Parameter(values, requires_grad=False)
    param.grad = gradient
    return slot._replace(param=param)


def send_back(slot: Slot, advanced: Slot | None, owner: int) -> None:
    """Give each process its shard of a parameter that its owner has advanced."""
    param = slot.param.detach()
    assert isinstance(param, DTensor)
    if advanced is None:
        values = torch.empty(param.shape, dtype=param.dtype, device=param.to_local().device)
    else:
        values = advanced.param.detach().contiguous()
    _broadcast(values, owner, param)
    param.to_local().copy_(_shards(values, param, param.placements).to_local())


def spread(like: Any, state: Any, param: Tensor, owner: int) -> Any:
    """A state as checkpoints hold it, sharded as its parameter is.

    Args:
        like: leaves on the meta device, the same on all processes.
        state: of the same structure on the owner; None on the others.
        param: the parameter.
        owner: the process that has it.
    """

    def leaf(like: Tensor, *values: Tensor) -> Tensor:
        if values:
            all_values = values[0].contiguous()
        else:
            all_values = torch.empty(like.shape, dtype=like.dtype, device=param.device)
        _broadcast(all_values, owner, param)
        return _shards_of_leaf(all_values, param)

    return tree_map(leaf, like) if state is None else tree_map(leaf, like, state)


def shards_of_state(state: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
    """A state that every process has whole, sharded as its parameter is."""
    if not is_sharded(param):
        return dict(state)
    shards = {}
    for key, branch in state.items():
        shards[key] = branch
        if key != "step":
            shards[key] = tree_map(lambda leaf: _shards_of_leaf(leaf, param), branch)
    return shards


def collected(state: Mapping[str, Any], is_here: bool) -> dict[str, Any]:
    """A state of a checkpoint as the owner holds it; others keep the number of steps alone."""
    kept = {}
    for key, branch in state.items():
        # all processes take part, whoever keeps it
        value = tree_map(whole, branch)
        if is_here or key == "step":
            kept[key] = value
    return kept


def agreed(is_bad: bool, slots: Sequence[Slot]) -> bool:
    """Whether any process says so, where parameters are sharded."""
    for slot in slots:
        param = slot.param
        if isinstance(param, DTensor):
            flag = torch.tensor(int(is_bad), device=param.to_local().device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            return bool(flag)
    return is_bad


def _broadcast(values: Tensor, owner: int, param: Tensor) -> None:
    assert isinstance(param, DTensor)
    mesh = param.device_mesh
    group = mesh.get_group() if mesh.ndim == 1 else None  # of two, all processes: see check_mesh
    dist.broadcast(values, owner, group=group)


def _shards(whole: Tensor, param: Tensor, placements: Sequence[Placement]) -> DTensor:
    """The shards of a tensor that every process has whole."""
    assert isinstance(param, DTensor)
    mesh = param.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(mesh, placements)


def _shards_of_leaf(leaf: Tensor, param: Tensor) -> Tensor:
    placements = _placements_of(tuple(leaf.shape), param)
    return leaf if placements is None else _shards(leaf, param, placements)


def _placements_of(shape: tuple[int, ...], param: Tensor) -> list[Placement] | None:
    """How a state of a shape lies, whose last axes are those of the parameter; else None."""
    assert isinstance(param, DTensor)
    more = len(shape) - param.ndim
    if not param.ndim or more < 0 or shape[more:] != tuple(param.shape):
        return None
    placements: list[Placement] = []
    for placement in param.placements:
        is_split = isinstance(placement, Shard)
        placements.append(Shard(placement.dim + more) if is_split else placement)
    return placements


def check_mesh(name: str, param: Tensor) -> None:
    """Check that a sharded parameter can be gathered.

    Raises:
        ValueError: its mesh has several axes and not all processes, or its shards are strided.
    """
    assert isinstance(param, DTensor)
    mesh = param.device_mesh
    if mesh.ndim > 1 and mesh.size() != dist.get_world_size():
        raise ValueError(
            f"parameter {name} is sharded over a mesh of {mesh.ndim} axes that has {mesh.size()} "
            f"of {dist.get_world_size()} processes: it must have all, or one axis."
        )
    for placement in param.placements:
        if type(placement) not in (Shard, Replicate):
            raise ValueError(
                f"parameter {name} must be sharded along whole axes or replicated, got {placement}."
            )

"""One step of parameters that are spread over processes, and their state in checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from learned_opt.deploy import sharded
from learned_opt.deploy.block_step import States, advance, blocks_of, num_steps
from learned_opt.deploy.precision import HALF, MASTER
from learned_opt.deploy.sharded import is_sharded
from learned_opt.deploy.state_layout import by_parameter
from learned_opt.deploy.weight_space import Slot, WeightSpace, WeightSpaces, live_slots


def advance_sharded(
    spaces: WeightSpaces,
    slots: Sequence[Slot],
    states: States,
    loss: Tensor | float | None,
    fused: bool,
) -> None:
    """One step of the sharded parameters among some that have a gradient.

    Args:
        spaces: the meta-optimizer, which is separable.
        slots: all parameters.
        states: of all parameters, moved on; whole on the process that advances a parameter.
        loss: the training loss of this process, if there is one.
        fused: let the kernel of the meta-optimizer write the parameters.
    """
    owners = sharded.owners(slots)
    live = [slot for slot in live_slots(slots) if is_sharded(slot.param)]

    for together in sharded.rounds(live):
        wholes: dict[str, Slot | None] = {}
        here: dict[Tensor, Any] = {}
        for slot in together:
            whole = sharded.gathered(slot, owners[slot.name] == dist.get_rank())
            wholes[slot.name] = whole
            if whole is not None:
                here[whole.param] = states[slot.param]

        kept = [whole for whole in wholes.values() if whole is not None]
        for block in blocks_of(True, kept, here, fused):
            advance(spaces.of(block), block, here, loss, fused)

        for slot in together:
            whole = wholes[slot.name]
            if whole is None:
                states[slot.param] = {"step": torch.tensor(num_steps(states, slot) + 1)}
            else:
                states[slot.param] = here[whole.param]
            sharded.send_back(slot, whole, owners[slot.name])


def spread_states(
    spaces: WeightSpaces, slots: Sequence[Slot], states: Mapping[Tensor, Any]
) -> dict[int, dict[str, Any]]:
    """The states of sharded parameters as checkpoints hold them, by the numbers of these.

    All processes take part. Each leaf is sharded as its parameter, so that another number of
    processes can read it.
    """
    owners = sharded.owners(slots)
    spread = {}
    for number, slot in enumerate(slots):
        state = states.get(slot.param)
        if not is_sharded(slot.param) or not state:
            continue

        like = _layout(spaces.of([slot]), slot)
        is_here = owners[slot.name] == dist.get_rank()
        moved: dict[str, Any] = {"step": state["step"]}
        for key, leaves in like.items():
            value = state[key] if is_here else None
            moved[key] = sharded.spread(leaves, value, slot.param, owners[slot.name])
        spread[number] = moved
    return spread


def collect_states(slots: Sequence[Slot], states: States) -> None:
    """Turn the states of a checkpoint into those that each process holds."""
    owners = sharded.owners(slots)
    for slot in slots:
        if is_sharded(slot.param) and states.get(slot.param):
            is_here = owners[slot.name] == dist.get_rank()
            states[slot.param] = sharded.collected(states[slot.param], is_here)


def _layout(space: WeightSpace, slot: Slot) -> dict[str, Any]:
    """Shapes and types of the state of a parameter, but for its counter, which all have."""
    like = by_parameter(space.state_like, [slot.name])[slot.name]
    del like["step"]
    if slot.param.dtype in HALF:
        like[MASTER] = torch.empty(slot.param.shape, dtype=space.dtype, device="meta")
    return like

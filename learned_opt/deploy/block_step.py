"""One step of the parameters of a block, from their gradients and the state that torch keeps."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from learned_opt.core.forward_only import forward_only
from learned_opt.core.tree import Tree
from learned_opt.deploy import state_layout
from learned_opt.deploy.precision import moving_copy, write_back
from learned_opt.deploy.weight_space import Slot, WeightSpace, blocks, live_slots
from learned_opt.optimizers.factors import GradientSet

States = MutableMapping[Tensor, Any]  # ``torch.optim.Optimizer.state``


def num_steps(states: States, slot: Slot) -> int:
    """Number of steps that a parameter took."""
    return int(states[slot.param].get("step", 0))


def blocks_of(
    separable: bool, slots: Sequence[Slot], states: States, fused: bool
) -> Iterator[list[Slot]]:
    """The parameters that have a gradient, in groups that are advanced together.

    Args:
        separable: whether the meta-optimizer treats each by itself; all are one group otherwise,
            those without a gradient, too.
        slots: all parameters.
        states: of all parameters.
        fused: whether a kernel writes them, which needs no temporary memory but for weight decay.
    """
    live = live_slots(slots)
    if separable:
        bounded = not fused or any(slot.decay for slot in live)
        yield from blocks(live, partial(num_steps, states), bounded)
    elif live:
        yield [*slots]


def advance(
    space: WeightSpace,
    slots: Sequence[Slot],
    states: States,
    loss: Tensor | float | None,
    fused: bool,
    factors: Mapping[str, GradientSet] | None = None,
) -> None:
    """One step of some parameters, which took equally many before.

    Args:
        space: their weight space.
        slots: the parameters, moved on; those without a gradient stay as they are.
        states: of all parameters, moved on.
        loss: the training loss, if there is one.
        fused: let the kernel of the meta-optimizer write the parameters.
        factors: of the gradients of single examples, for those who read them.
    """
    count = num_steps(states, slots[0])
    device = slots[0].param.device
    params = {}
    grads = {}
    for slot in slots:
        params[slot.name] = moving_copy(slot.param.detach(), states[slot.param], space.dtype)
        grads[slot.name] = _gradient(slot, space.dtype)

    # parameters that took no step yet, or were added later, start afresh
    if count:
        parts = {slot.name: states[slot.param] for slot in slots}
        state = state_layout.together(parts, space.state_like)
        state["step"] = state["step"].to(device)
    else:
        state = space.optimizer.init_state(params)

    if fused:  # params and state share memory with what torch keeps, so the kernel moves both
        before = {slot.name: params[slot.name].clone() for slot in slots if slot.decay}
        rates = {slot.name: (slot.rate, 1.0) for slot in slots}
        space.optimizer.step_(grads, state, params, rates)
        _decay_behind(slots, params, before)
    else:
        more: Tree = {}
        if loss is not None:
            more["loss"] = torch.as_tensor(loss, device=device).detach()
        if factors is not None:
            more["factors"] = {name: factors[name] for name in params if name in factors}
        # the statistics of an optimizer need the precision of its parameters
        with torch.autocast(device.type, enabled=False), forward_only():
            updates, state = space.step(grads, state, params, more)
        _apply([slot for slot in slots if slot.param.grad is not None], params, updates)

    parts = state_layout.by_parameter(state, params)
    for slot in slots:
        states[slot.param] = parts[slot.name]
        # on the CPU, where reading it waits for nothing; one for each, as checkpoints are read into
        # the tensors of a state
        states[slot.param]["step"] = torch.tensor(count + 1)
        write_back(slot.param.detach(), params[slot.name], states[slot.param])


def _gradient(slot: Slot, dtype: torch.dtype) -> Tensor:
    if slot.param.grad is None:
        return torch.zeros_like(slot.param, dtype=dtype)
    return slot.param.grad.detach().to(dtype)


def _apply(slots: Sequence[Slot], params: Tree, updates: Tree) -> None:
    """Decay the parameters and add their updates."""
    for slot in slots:
        param = params[slot.name]
        update = updates[slot.name]
        if slot.decay and update.numel():
            param.mul_(1 - slot.rate * slot.decay * _root_mean_square(update))
        param.add_(update, alpha=slot.rate)


def _decay_behind(slots: Sequence[Slot], params: Tree, before: Tree) -> None:
    """Decay parameters that the kernel has moved, whose updates nobody has seen."""
    for slot in slots:
        if slot.name in before and slot.param.numel():
            old = before[slot.name]
            size = _root_mean_square(params[slot.name] - old)  # of rate times update
            params[slot.name].sub_(old.mul_(slot.decay * size))


def _root_mean_square(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()

"""Which parameters a deployed optimizer advances together, and the meta-optimizer bound to them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from learned_opt.core import tree
from learned_opt.core.compiled import Compiled
from learned_opt.core.tree import Tree
from learned_opt.deploy.inputs import Step
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

# entries that a separable optimizer works on at a time, which bounds its temporary memory
BLOCK = 2**20


class Slot(NamedTuple):
    """A parameter in a param group of ``torch.optim``.

    Args:
        name: of the parameter, unique.
        param: the parameter itself.
        group: the param group that it is in.
        label: what messages call it.
    """

    name: str
    param: nn.Parameter
    group: dict[str, Any]
    label: str

    @property
    def rate(self) -> float:
        """Multiple of the update."""
        return float(self.group["lr"])

    @property
    def decay(self) -> float:
        """Share of the weights that is taken away, in units of the size of the step."""
        return float(self.group["weight_decay"])


class WeightSpace(NamedTuple):
    """A meta-optimizer on the parameters that it advances together.

    Args:
        optimizer: the meta-optimizer, bound to them.
        step: its step, perhaps compiled.
        state_like: an opt_state on the meta device: structure, shapes and dtypes without numbers.
    """

    optimizer: MetaOptimizer
    step: Callable[..., tuple[Tree, Tree]]
    state_like: Tree


def slots_of(param_groups: Sequence[dict[str, Any]], separable: bool) -> list[Slot]:
    """All parameters of an optimizer, in order.

    Args:
        param_groups: as ``torch.optim.Optimizer`` keeps them.
        separable: take numbers for names: they are unique, and a separable meta-optimizer needs no
            names.
    """
    slots: list[Slot] = []
    for group in param_groups:
        params = group["params"]
        numbers = range(len(slots), len(slots) + len(params))
        labels = group.get("param_names", numbers)
        names = numbers if separable else labels
        for name, param, label in zip(names, params, labels, strict=True):
            slots.append(Slot(str(name), param, group, str(label)))
    return slots


def labelled(slots: Sequence[Slot]) -> list[tuple[str, nn.Parameter]]:
    """What messages call the parameters, and the parameters."""
    return [(slot.label, slot.param) for slot in slots]


def live_slots(slots: Sequence[Slot]) -> list[Slot]:
    """The slots that have a gradient.

    Raises:
        ValueError: a gradient is sparse.
    """
    live = [slot for slot in slots if slot.param.grad is not None]
    for slot in live:
        if slot.param.grad is not None and slot.param.grad.is_sparse:
            raise ValueError(f"sparse gradients are not supported, parameter {slot.label} has one.")
    return live


def check_space(spec: PermutationSpec, slots: Sequence[Slot]) -> None:
    """Check that the spec of a meta-optimizer that is not separable is that of the parameters.

    Raises:
        ValueError: names differ, or axes of one name differ in length.
    """
    params = {slot.name: slot.param for slot in slots}
    if keys := tree.difference(list(spec.parameters), list(params)):
        raise ValueError(
            f"the meta-optimizer is bound to another weight space than these parameters: {keys}."
        )
    spec.sizes(params)


def blocks(
    slots: Sequence[Slot], num_steps: Callable[[Slot], int], bounded: bool
) -> Iterator[list[Slot]]:
    """Parameters that took equally many steps, which a separable optimizer advances together.

    Args:
        slots: the parameters that have a gradient.
        num_steps: how many steps a parameter took.
        bounded: start a new block where one would have more than BLOCK entries.
    """
    block: list[Slot] = []
    num_entries = 0
    for slot in sorted(slots, key=num_steps):
        is_full = bounded and num_entries + slot.param.numel() > BLOCK
        if block and (is_full or num_steps(slot) != num_steps(block[0])):
            yield block
            block = []
            num_entries = 0
        block.append(slot)
        num_entries += slot.param.numel()

    if block:
        yield block


def bind(meta_optimizer: MetaOptimizer, slots: Sequence[Slot], compile: bool) -> WeightSpace:
    """A meta-optimizer on the weight space of some parameters.

    Args:
        meta_optimizer: bound to these parameters already, unless it is separable.
        slots: the parameters.
        compile: compile the step.
    """
    if meta_optimizer.separable:
        shapes = {slot.name: slot.param.shape for slot in slots}
        meta_optimizer = meta_optimizer.rebind(free_spec(shapes))

    step = Step(meta_optimizer)
    on_meta = {slot.name: slot.param.new_empty(slot.param.shape, device="meta") for slot in slots}
    state_like = meta_optimizer.init_state(on_meta)
    return WeightSpace(meta_optimizer, Compiled(step) if compile else step, state_like)


def free_spec(shapes: Mapping[str, Sequence[int]]) -> PermutationSpec:
    """A spec in which every axis of every tensor has a permutation of its own."""
    axes = {}
    for name, shape in shapes.items():
        axes[name] = tuple(f"{name}[{axis}]" for axis in range(len(shape)))
    return PermutationSpec(axes)

"""Which parameters a deployed optimizer advances together, and the meta-optimizer bound to them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from learned_opt.core import tree
from learned_opt.core.compiled import Compiled
from learned_opt.core.tree import Tree
from learned_opt.deploy.precision import arithmetic_type
from learned_opt.deploy.pure_step import Step
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
    """

    name: str
    param: nn.Parameter
    group: dict[str, Any]

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
        dtype: of state and arithmetic.
    """

    optimizer: MetaOptimizer
    step: Callable[..., tuple[Tree, Tree]]
    state_like: Tree
    dtype: torch.dtype


class WeightSpaces:
    """A meta-optimizer on all parameters, and bound to those that it advances together.

    Args:
        meta_optimizer: with its theta; its spec names the parameters unless it is separable.
        slots: all parameters.
        compile: compile steps.

    Attributes:
        separable: whether each parameter may be advanced by itself.

    Raises:
        ValueError: names or shapes of the parameters do not fit the spec.
    """

    def __init__(self, meta_optimizer: MetaOptimizer, slots: Sequence[Slot], compile: bool) -> None:
        self.compile = compile
        self.separable = meta_optimizer.simplified().separable
        if not self.separable:
            check_space(meta_optimizer.spec, slots)
            self.bound = meta_optimizer.simplified()
        else:
            spec = spec_of_slots(meta_optimizer.spec, slots)
            self.bound = meta_optimizer.rebind(spec).simplified()
        self._thetas: dict[Any, MetaOptimizer] = {}
        self._spaces: dict[Any, WeightSpace] = {}

    def of(self, slots: Sequence[Slot]) -> WeightSpace:
        """The weight space of some parameters, on their device and in the type for them."""
        dtype = arithmetic_type([slot.param.dtype for slot in slots])
        device = slots[0].param.device
        key = tuple((slot.name, slot.param.shape) for slot in slots)
        if (key, dtype, device) not in self._spaces:
            self._spaces[key, dtype, device] = self._bind(slots, dtype, device)
        return self._spaces[key, dtype, device]

    def theta(self, dtype: torch.dtype, device: torch.device) -> MetaOptimizer:
        """The meta-optimizer in a type on a device."""
        if (dtype, device) not in self._thetas:
            self._thetas[dtype, device] = deepcopy(self.bound).to(device, dtype)
        return self._thetas[dtype, device]

    def _bind(self, slots: Sequence[Slot], dtype: torch.dtype, device: torch.device) -> WeightSpace:
        meta_optimizer = self.theta(dtype, device)
        if self.separable:
            meta_optimizer = meta_optimizer.part([slot.name for slot in slots])

        step = Step(meta_optimizer)
        on_meta = {}
        for slot in slots:
            on_meta[slot.name] = torch.empty(slot.param.shape, dtype=dtype, device="meta")
        state_like = meta_optimizer.init_state(on_meta)
        maybe_compiled = Compiled(step) if self.compile else step
        return WeightSpace(meta_optimizer, maybe_compiled, state_like, dtype)


def slots_of(param_groups: Sequence[dict[str, Any]]) -> list[Slot]:
    """All parameters of an optimizer, in order; those without a name have their number for one.

    Args:
        param_groups: as ``torch.optim.Optimizer`` keeps them.
    """
    slots: list[Slot] = []
    taken: set[str] = set()
    for group in param_groups:
        params = group["params"]
        numbers = range(len(slots), len(slots) + len(params))
        names = group.get("param_names", numbers)
        for number, name, param in zip(numbers, names, params, strict=True):
            # parameters of two models may have one name
            unique = f"{number}: {name}" if str(name) in taken else str(name)
            taken.add(unique)
            slots.append(Slot(unique, param, group))
    return slots


def live_slots(slots: Sequence[Slot]) -> list[Slot]:
    """The slots that have a gradient.

    Raises:
        ValueError: a gradient is sparse.
    """
    live = [slot for slot in slots if slot.param.grad is not None]
    for slot in live:
        if slot.param.grad is not None and slot.param.grad.is_sparse:
            raise ValueError(f"sparse gradients are not supported, parameter {slot.name} has one.")
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


def spec_of_slots(spec: PermutationSpec, slots: Sequence[Slot]) -> PermutationSpec:
    """A spec that names all parameters of a separable optimizer.

    Args:
        spec: what is known of the symmetries of these, or of other parameters.
        slots: all parameters; the axes of those that the spec does not fit permute freely.
    """
    shapes = {}
    for slot in slots:
        if not _fits(spec.part([slot.name]), slot):
            shapes[slot.name] = slot.param.shape
    if not shapes:
        return spec

    known = spec.part([name for name in spec.parameters if name not in shapes])
    return replace(known, axes={**known.axes, **free_spec(shapes).axes})


def _fits(spec: PermutationSpec, slot: Slot) -> bool:
    """Whether a spec is that of one parameter."""
    try:
        sizes = spec.sizes({slot.name: torch.empty(slot.param.shape, device="meta")})
    except ValueError:
        return False
    num_axes = max((axis + 1 for name in spec.axes for axis in spec.slots(name)), default=0)
    is_known = all(sizes[name] == size for name, size in spec.fixed_sizes.items())
    return is_known and num_axes == slot.param.ndim


def blocks(
    slots: Sequence[Slot], num_steps: Callable[[Slot], int], bounded: bool
) -> Iterator[list[Slot]]:
    """Parameters that a separable optimizer advances together.

    They took equally many steps, are on one device and are advanced in one type.

    Args:
        slots: the parameters that have a gradient.
        num_steps: how many steps a parameter took.
        bounded: start a new block where one would have more than BLOCK entries.
    """

    def key(slot: Slot) -> tuple[int, str, str]:
        dtype = arithmetic_type([slot.param.dtype])
        return num_steps(slot), str(dtype), str(slot.param.device)

    block: list[Slot] = []
    num_entries = 0
    for slot in sorted(slots, key=key):
        is_full = bounded and num_entries + slot.param.numel() > BLOCK
        if block and (is_full or key(slot) != key(block[0])):
            yield block
            block = []
            num_entries = 0
        block.append(slot)
        num_entries += slot.param.numel()

    if block:
        yield block


def free_spec(shapes: Mapping[str, Sequence[int]]) -> PermutationSpec:
    """A spec in which every axis of every tensor has a permutation of its own."""
    axes = {}
    for name, shape in shapes.items():
        axes[name] = tuple(f"{name}[{axis}]" for axis in range(len(shape)))
    return PermutationSpec(axes)

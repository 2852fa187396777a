"""The factors of modules that hooks do not see into: attention and recurrent networks of torch.nn.

Such a module is run once more, by itself, as a traced loss whose gradient with respect to the
module's outputs is the one that the backward pass had: the inner products of both, summed up. So
its factors are those of meta-training. The forward and backward pass of the user stay as they are.

Legend: B examples, T positions.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from learned_opt.core.tree import Tree
from learned_opt.deploy.module_call import ModuleCall
from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.optimizers.factors import Factors

REPLAYED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
OUTPUT, STATE = "output", "state"
MASKS = ("attn_mask",)  # have no examples

# where examples are: the axis, "none" for one example without such an axis, None for no examples
Axis = int | str | None


class Replay:
    """Runs calls of one module again.

    A graph is traced for each set of shapes, so a sequence of a new length costs about a second.

    Args:
        module: of the user.

    Attributes:
        uncovered: parameters without factors in the last call, and the reason.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.losses: dict[object, TappedLoss] = {}
        self.uncovered: dict[str, str] = {}

    def factors(self, call: ModuleCall) -> dict[str, Factors]:
        """The factors of the module's parameters, by their names within it."""
        names = [name for name, _ in self.module.named_parameters()]
        if reason := self._obstacle(call):
            self.uncovered = dict.fromkeys(names, reason)
            return {}

        params = {name: param.detach() for name, param in self.module.named_parameters()}
        repeated = _Repeated(self.module, call)
        with torch.enable_grad():
            if repeated.key not in self.losses:
                trees = (params, repeated.batch, repeated.constants)
                self.losses[repeated.key] = TappedLoss(repeated.loss, *trees)
            tapped = self.losses[repeated.key]
            factors = tapped(params, repeated.batch, repeated.constants)[2]
        self.uncovered = tapped.uncovered
        return factors

    def _obstacle(self, call: ModuleCall) -> str | None:
        if call.training and getattr(self.module, "dropout", 0):
            return "there is dropout inside of its module, which cannot be repeated"
        if any(isinstance(value, nn.utils.rnn.PackedSequence) for value in call.arguments[0]):
            return "its module reads a packed sequence"
        return None


class _Repeated:
    """A call as a loss of parameters, batch and constants, see ``TappedLoss``.

    Args:
        module: that was called.
        call: the call.

    Attributes:
        batch: arguments and gradients of outputs, examples first.
        constants: tensors without examples.
        key: of all calls that have the same graph.
        loss: ``(params, batch, constants) -> scalar``.
    """

    def __init__(self, module: nn.Module, call: ModuleCall) -> None:
        args, kwargs = call.arguments
        arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        self.batch: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}

        leaves, structure = tree_flatten(dict(arguments))
        roles = _roles(arguments)
        slots: list[Any] = []  # (name, axis) of tensors, other values as they are
        names: dict[int, str] = {}
        for number, (leaf, role) in enumerate(zip(leaves, roles, strict=True)):
            if isinstance(leaf, Tensor):
                # arguments that are one tensor stay so: attention tells by it what it may pack
                name = names.setdefault(id(leaf), f"argument{number}")
                slots.append(self._keep(name, leaf, _axis(module, role, leaf)))
            else:
                slots.append(leaf)

        outputs = []
        for number, gradient in sorted(call.gradients.items()):
            axis = _axis(module, _role_of_output(module, number), gradient)
            outputs.append((number, self._keep(f"gradient{number}", gradient, axis)))

        self.key = self._key(slots, outputs, call.training)
        self.loss = _loss(module, slots, structure, outputs)

    def _keep(self, name: str, tensor: Tensor, axis: Axis) -> "_Slot":
        if axis is None:
            self.constants[name] = tensor.contiguous()
        elif isinstance(axis, int):
            self.batch[name] = tensor.movedim(axis, 0).contiguous()
        else:
            self.batch[name] = tensor.unsqueeze(0).contiguous()
        return _Slot(name, axis)

    def _key(self, slots: list[Any], outputs: list[Any], training: bool) -> object:
        tensors = {**self.batch, **self.constants}
        layout = [(name, value.shape, value.dtype) for name, value in tensors.items()]
        return repr((slots, outputs, layout, training))


class _Slot:
    """Where a tensor of a call is kept.

    Args:
        name: its key.
        axis: of examples.
    """

    def __init__(self, name: str, axis: Axis) -> None:
        self.name = name
        self.axis = axis

    def __repr__(self) -> str:
        return f"{self.name}@{self.axis}"

    def value(self, batch: Tree, constants: Tree) -> Tensor:
        """The tensor as the module takes it."""
        if self.axis is None:
            return constants[self.name]
        value = batch[self.name]
        # the graph holds views, which fit the strides of one layout
        moved = value.movedim(0, self.axis) if isinstance(self.axis, int) else value.squeeze(0)
        return moved.contiguous()


def _loss(
    module: nn.Module, slots: list[Any], structure: Any, outputs: list[tuple[int, _Slot]]
) -> Callable[[Tree, Tree, Tree], Tensor]:
    def loss(params: Tree, batch: Tree, constants: Tree) -> Tensor:
        values: dict[str, Tensor] = {}
        leaves = []
        for slot in slots:
            if not isinstance(slot, _Slot):
                leaves.append(slot)
                continue
            if slot.name not in values:
                values[slot.name] = slot.value(batch, constants)
            leaves.append(values[slot.name])

        arguments = tree_unflatten(leaves, structure)
        results = tree_leaves(functional_call(module, params, (), arguments))
        total = torch.zeros(())
        for number, slot in outputs:
            total = total + (results[number] * slot.value(batch, constants)).sum()
        return total

    return loss


def _roles(arguments: Any) -> list[str]:
    """What each leaf of the arguments is."""
    roles = []
    for name, value in arguments.items():
        role = STATE if name in ("hx", "hidden") else name
        roles.extend([role] * len(tree_leaves(value)))
    return roles


def _role_of_output(module: nn.Module, number: int) -> str:
    if number == 0 or isinstance(module, nn.RNNCellBase):
        return OUTPUT
    return "weights" if isinstance(module, nn.MultiheadAttention) else STATE


def _axis(module: nn.Module, role: str, tensor: Tensor) -> Axis:
    """Where the examples of a tensor are."""
    if role in MASKS:
        return None
    if isinstance(module, nn.RNNCellBase):
        return 0 if tensor.ndim == 2 else "none"
    if isinstance(module, nn.MultiheadAttention) and role in ("key_padding_mask", "weights"):
        has_examples = tensor.ndim > (1 if role == "key_padding_mask" else 2)
        return 0 if has_examples else "none"
    if tensor.ndim == 2:  # (T, C), or (layers, C)
        return "none"
    return 1 if role == STATE or has_positions_first(module, tensor) else 0


def has_positions_first(module: nn.Module, inputs: Tensor) -> bool:
    """Whether a module takes these inputs for ``(T, B, C)``."""
    return inputs.ndim == 3 and not getattr(module, "batch_first", True)

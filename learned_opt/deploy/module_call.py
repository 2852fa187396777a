"""One call of a module of the user, as hooks see it."""

from collections.abc import Mapping, MutableMapping
from dataclasses import InitVar, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from learned_opt.optimizers.factors import Factors

TWICE = (
    "a backward pass went through the same forward pass a second time (retain_graph): its rows "
    "would count twice. Call backward once, on the sum of the losses."
)


@dataclass
class ModuleCall:
    """What went into a module, and the gradients of what came out.

    Args:
        module: the module.
        arguments: of its forward, detached: positional ones, then those by name.
        params: of the module whose factors are asked for, by name within it; those that are done
            are taken out.
        num_examples: of the batch, as far as known.
        known: id of a tensor -> the same detached, of the calls that are kept.

    Attributes:
        training: whether the module was in training mode.
        gradients: number of a tensor among the outputs -> gradient of the loss.
        backward_pass: number of the pass that they are of.
        factors: of the parameters, once they are made.
    """

    module: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    params: dict[str, Tensor]
    num_examples: int | None
    known: InitVar[MutableMapping[int, Tensor]]
    training: bool = field(init=False)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    backward_pass: int = -1
    factors: Mapping[str, Factors] | None = None

    def __post_init__(self, known: MutableMapping[int, Tensor]) -> None:
        self.training = self.module.training

        def detached(tensor: Tensor) -> Tensor:
            # arguments that are one tensor stay so; an id may be that of a tensor that is gone
            other = known.get(id(tensor))
            if other is None or not other.is_set_to(tensor):
                other = tensor.detach()
                known[id(tensor)] = other
            return other

        self.arguments = tree_map_only(Tensor, detached, self.arguments)

    def receive(self, number: int, gradient: Tensor) -> None:
        """Take the gradient of an output; autograd calls it.

        Raises:
            ValueError: the call is done with already.
        """
        if not self.params:
            raise ValueError(TWICE)
        backward_pass = current_pass()
        if backward_pass != self.backward_pass:  # one that gave no gradients of parameters
            self.gradients = {}
            self.backward_pass = backward_pass
        self.gradients[number] = gradient.detach()
        self.factors = None

    def finish(self, name: str) -> None:
        """Note that a parameter has its factors; after the last one nothing is kept."""
        del self.params[name]
        if not self.params:
            self.arguments = ((), {})
            self.gradients = {}
            self.factors = None

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments themselves."""
        args, kwargs = self.arguments
        return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def current_pass() -> int:
    """The number of the backward pass that is under way."""
    return torch._C._current_graph_task_id()

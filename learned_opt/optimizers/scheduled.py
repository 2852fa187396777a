"""The base of optimizers that must know how long the training will be."""

from abc import ABC
from copy import copy
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer, check_at_least_one, init_step
from learned_opt.optimizers.training_stage import Stage, init_losses, read_stage
from learned_opt.symmetry.spec import PermutationSpec


class ScheduledOptimizer(MetaOptimizer, ABC):
    """Reads the stage of the training: its length, and the loss so far.

    The length belongs to the opt_state, so that every chain has its own.

    Args:
        spec: permutation spec of the inner parameters.
        num_steps: inner steps of the training; None where whoever starts it will tell, which
            meta-training and evaluation do.
        fixed_decays: the loss is averaged over ten steps at most, however long the training.

    Raises:
        ValueError: ``num_steps`` is below 1.
    """

    reads_num_steps = True

    def __init__(
        self, spec: PermutationSpec, num_steps: int | None = None, fixed_decays: bool = False
    ) -> None:
        super().__init__(spec)
        if num_steps is not None:
            check_at_least_one(num_steps=num_steps)
        self.num_steps = num_steps
        self.fixed_decays = fixed_decays

    @override
    def with_num_steps(self, num_steps: int) -> Self:
        check_at_least_one(num_steps=num_steps)
        other = copy(self)
        other.num_steps = num_steps
        return other

    def init_stage(self, params: Tree) -> Tree:
        """The part of a fresh opt_state that belongs to all tensors at once.

        Raises:
            ValueError: the length of the training is not known.
        """
        if self.num_steps is None:
            name = type(self).__name__
            raise ValueError(f"{name} needs num_steps, the inner steps of the training, got none.")
        step = init_step(params)
        first = next(iter(params.values()))
        return {
            "step": step,
            "num_steps": torch.full_like(step, self.num_steps),
            "losses": init_losses(first),
        }

    def stage(self, state: Tree, loss: Tensor) -> tuple[Stage, Tree]:
        """The stage at this step, and that part of the next opt_state."""
        stage = read_stage(
            state["losses"], loss, state["step"], state["num_steps"], self.fixed_decays
        )
        return stage, {
            "step": state["step"] + 1,
            "num_steps": state["num_steps"],
            "losses": stage.losses,
        }


def clip_gradients(grads: Tree) -> Tree:
    """Gradients within 1000: a spike must not fill the averages for good."""
    return {name: grad.clamp(-1000, 1000) for name, grad in grads.items()}


def relative_step(output: Tensor, param: Tensor, step_mult: float, exp_mult: float) -> Tensor:
    """A step in units of the size of a tensor, down the direction that an MLP gives.

    Args:
        output: direction and logarithm of a factor, ``(*shape, 2)``.
        param: ``(*shape,)``.
        step_mult: of the direction.
        exp_mult: of the logarithm.
    """
    direction, magnitude = output.unbind(-1)
    size = torch.sqrt(param.square().mean() + 1e-9)
    return -step_mult * size * direction * torch.exp(exp_mult * magnitude)

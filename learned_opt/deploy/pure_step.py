"""The step of a meta-optimizer as one function of trees, with or without a loss."""

from typing import Any

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer


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

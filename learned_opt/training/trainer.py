"""Meta-training as a LightningModule.

Legend: N tasks of this process, R chains of each.
"""

from collections.abc import Callable, Mapping
from signal import Signals as Signal
from types import MappingProxyType
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.rng import Key, generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.estimators.share import Share
from learned_opt.estimators.single_process import as_shared
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.nonfinite import NonfiniteUnrolls, nonfinite_unrolls
from learned_opt.training.parameter_groups import Settings, parameter_groups


class MetaTrainer(lightning.LightningModule):
    """Updates theta with estimated meta-gradients; one Lightning batch is one outer step.

    Optimisation stays automatic: ``training_step`` returns a surrogate whose value is the
    meta-loss and whose gradient is the estimate, so that clipping and schedules work as in any
    Lightning module. Ranks add up their shares of the estimate before; what DDP then averages
    are equal gradients, so that the order in which it sums, which is another one after a resume,
    makes no difference.

    All state beside theta and the outer optimizer is ``estimator_state``, a plain attribute (a
    buffer would be overwritten by the leader's under DDP): the rows of this rank's share of the
    tasks. A checkpoint holds those of all.

    Args:
        optimizer: the meta-optimizer; its parameters are theta.
        estimator: estimates the meta-gradient; its tasks are those of all ranks.
        outer_optimizer: constructor ``(parameters) -> torch.optim.Optimizer``.
        schedule: constructor ``(outer optimizer) -> schedule``, stepped once per outer step;
            None for none.
        seed: root of all randomness.
        max_steps: outer steps.
        problems: the tasks by the label that tells them apart in the names of figures; a single
            task has the empty label. Callbacks work on them; training itself does not need them.
        blocks: pattern -> settings of the outer optimizer for those tensors of theta, see
            ``parameter_groups``; empty where all have the same.

    Attributes:
        pending_signals: signals of any rank that wait for a checkpoint; the same on all ranks.
        nonfinite: what was not finite in the last outer step, by label; empty if all was finite.
        is_estimating: whether an estimate is being made; whatever raises then leaves the state of
            the outer step before it as it was.

    Raises:
        ValueError: ``max_steps`` is not positive, or the blocks do not fit theta.
    """

    def __init__(
        self,
        optimizer: MetaOptimizer,
        estimator: GradientEstimator,
        outer_optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any] | None,
        seed: int,
        max_steps: int,
        problems: Mapping[str, InnerProblem] = MappingProxyType({}),
        blocks: Mapping[str, Settings] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}.")

        self.meta_optimizer = optimizer
        self.estimator = as_shared(estimator)
        self.outer_optimizer = outer_optimizer
        self.schedule = schedule
        self.seed = seed
        self.max_steps = max_steps
        self.problems = dict(problems)
        self.blocks = dict(blocks)

        self.share = Share()
        self.estimator_state: State | None = None
        self.pending_signals: set[Signal] = set()
        self.nonfinite: dict[str, NonfiniteUnrolls] = {}
        self.is_estimating = False

    @property
    def theta(self) -> dict[str, Tensor]:
        """Meta-parameters by their names in the meta-optimizer."""
        return dict(self.meta_optimizer.named_parameters())

    @property
    def detached_theta(self) -> dict[str, Tensor]:
        """The same tensors without their gradients."""
        return {name: parameter.detach() for name, parameter in self.theta.items()}

    @override
    def setup(self, stage: str) -> None:
        self.share = Share(self.trainer.global_rank, self.trainer.world_size)
        self.estimator = self.estimator.shared(self.share)

    @override
    def on_train_start(self) -> None:
        if self.estimator_state is None:  # no checkpoint brought the chains
            self.estimator_state = self._fresh_state()

    @override
    def on_train_batch_start(self, batch: list[Tensor], batch_idx: int) -> None:
        # numbers the rows of loggers: Lightning's own count is off by one after some resumes
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        assert self.estimator_state is not None, "on_train_start makes it"
        key = (self.seed, "estimate", self.global_step)
        theta = self.detached_theta
        before = self.estimator_state

        self.is_estimating = True
        estimate, self.estimator_state = self.estimator.estimate(theta, before, generator(*key))
        self.is_estimating = False
        self.nonfinite = self._find_nonfinite(estimate, theta, before, key)

        estimate = estimate._replace(gradient=self.share.total_tree(estimate.gradient))
        self._log(estimate)
        return surrogate_loss(self.theta, estimate)

    @override
    def configure_optimizers(self) -> Any:
        parameters: Any = self.meta_optimizer.parameters()
        if self.blocks:
            parameters = parameter_groups(self.theta, self.blocks, self.outer_optimizer)

        optimizer = self.outer_optimizer(parameters)
        if self.schedule is None:
            return optimizer

        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # behind the callbacks, which measure all; a block at rest begins its averages when it
        # moves, and its noise does not clip the others
        for group in optimizer.param_groups:
            if self.blocks and group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None

    @override
    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        # one number for each outer step; tasks make their own batches
        return DataLoader(TensorDataset(torch.arange(self.max_steps)))

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.estimator_state is not None, "on_train_start makes it"
        states = self.share.gather(tree.to(self.estimator_state, "cpu"))
        # in the order of the tasks, so that any number of ranks can go on; only the leader writes
        checkpoint["estimator_state"] = self.estimator.join(states) if states else None

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fresh = self._fresh_state()
        saved = self.estimator.select(checkpoint["estimator_state"])
        # every tensor goes where a fresh state has it: counters stay on the CPU
        self.estimator_state = tree.tree_map(lambda like, leaf: leaf.to(like.device), fresh, saved)

    def _fresh_state(self) -> State:
        return self.estimator.init_state(self.theta, generator(self.seed, "start"))

    def _find_nonfinite(
        self, estimate: MetaGradient, theta: Tree, before: State, key: tuple[Key, ...]
    ) -> dict[str, NonfiniteUnrolls]:
        if estimate.finite.all():
            return {}

        # the same arguments give the same draws, so that nothing is kept while all is finite
        starts = self.estimator.unroll_starts(theta, before, generator(*key))
        nonfinite: dict[str, NonfiniteUnrolls] = {}
        for label, start in starts.items():
            part = estimate.parts.get(label, estimate)
            finite = part.finite.cpu()  # (R, N)
            if not finite.all():
                nonfinite[label] = nonfinite_unrolls(start, finite)
        return nonfinite

    def _log(self, estimate: MetaGradient) -> None:
        values = {
            "meta_loss/train": estimate.meta_loss,
            "meta_grad_norm": tree.global_norm(estimate.gradient),
            "nonfinite_pairs": self.share.total(estimate.num_nonfinite.float()),
        }
        values |= estimate.figures
        for task, part in estimate.parts.items():
            values[f"meta_loss/train/{task}"] = part.meta_loss
            values |= {f"{name}/{task}": value for name, value in part.figures.items()}
        self.log_dict(values, batch_size=1)


def meta_trainer(module: lightning.LightningModule) -> MetaTrainer:
    """The module that Lightning hands to a callback, known as a MetaTrainer.

    Raises:
        TypeError: it is another module.
    """
    if not isinstance(module, MetaTrainer):
        raise TypeError(f"this callback works on a MetaTrainer, got {type(module).__name__}.")
    return module


def surrogate_loss(theta: Tree, estimate: MetaGradient) -> Tensor:
    """A scalar whose value is the meta-loss and whose gradient by theta is the estimate."""
    products = []
    for name, gradient in estimate.gradient.items():
        products.append((theta[name] * gradient).sum())

    inner = torch.stack(products).sum()
    return estimate.meta_loss.nan_to_num() + inner - inner.detach()

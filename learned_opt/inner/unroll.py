"""THE inner loop: chains of inner training, side by side under vmap, compiled.

Meta-training, evaluation, baselines and the tests of deployed optimizers all run through
``Unroll``.

Legend: M chains, K inner steps; a leading M on every leaf of a chains tree, (K, M) on every leaf
of batches.
"""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_leaves

from learned_opt.core import tree
from learned_opt.core.backpropagation import repeat_differentiably
from learned_opt.core.compiled import Compiled, NotCompiledError
from learned_opt.core.forward_only import forward_only
from learned_opt.core.pullback import Pullback
from learned_opt.core.recompute import recompute
from learned_opt.core.repeated import Inputs, repeat
from learned_opt.core.rng import Key, generator
from learned_opt.core.tree import Tree
from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.optimizers.base import MetaOptimizer
from tasks.base import TaskFamily

PRECISIONS = ("float32", "bf16")
Chains = Tree  # M running inner problems: trees ``task``, ``params`` and ``opt_state``
RUNNING = ("params", "opt_state")  # what an inner step moves
Fixed = tuple[Tree, Tree]  # what it does not: theta, and the task


class Unroll:
    """Runs inner training of a task family under a meta-optimizer.

    Args:
        family: the inner problems.
        optimizer: the meta-optimizer; its parameters are replaced by the theta that ``run`` gets.
        compile: fuse one inner step of all chains with ``torch.compile``; where that is not
            possible, a warning is logged once and the steps run eagerly.
        device: where chains live.
        precision: of the matrix products of the meta-optimizer, ``float32`` or ``bf16``
            (bfloat16 by autocast; its state, the updates and the inner network stay float32).
        recompute: backward passes run every inner step again, as those of compiled steps do.

    Raises:
        ValueError: an unknown precision.
    """

    def __init__(
        self,
        family: TaskFamily,
        optimizer: MetaOptimizer,
        compile: bool = True,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        recompute: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}."
            )

        self.family = family.to(device)
        self.optimizer = optimizer
        self.device = torch.device(device)
        self.precision = precision
        self.recompute = recompute
        # of a parametrisation; those that are 1 would cost a product
        multipliers = family.update_multipliers(optimizer.update_scale)
        self.multipliers = {name: value for name, value in multipliers.items() if value != 1}
        self.tapped = self._tap() if optimizer.needs_factors else None

        self._batched_step = vmap(self._step)
        self._compiled_step = Compiled(self._batched_step) if compile else None
        self._pullback = Compiled(Pullback(self._batched_step))

    @property
    def compiles(self) -> bool:
        """Whether the first inner step is compiled."""
        return self._compiled_step is not None

    def start(
        self, keys: Sequence[tuple[Key, ...]], num_steps: Sequence[int] | None = None
    ) -> Chains:
        """Fresh chains, one for each key; equal keys give equal chains.

        Args:
            keys: of the draws.
            num_steps: inner steps that each chain will run, for optimizers that must know; None
                for those that the optimizer was told at construction.
        """
        chains = []
        for i, key in enumerate(keys):
            task = self.family.sample(generator(*key, "task"))
            params = self.family.init(generator(*key, "init"), task)
            optimizer = self.optimizer
            if num_steps is not None:
                optimizer = optimizer.with_num_steps(num_steps[i])
            opt_state = optimizer.init_state(params)
            chains.append({"task": task, "params": params, "opt_state": opt_state})
        return tree.to(tree.stack(chains), self.device)

    def batches(
        self, keys: Sequence[tuple[Key, ...]], chains: Chains, num_steps: int, split: str = "train"
    ) -> Tree:
        """Batches for the next inner steps.

        Args:
            keys: one for each chain; there may be more chains than keys.
            chains: their tasks are drawn from.
            num_steps: K.
            split: of the data, ``train`` or ``valid``.

        Returns:
            Tree: leaves ``(K, M, ...)``.
        """
        word = "batch" if split == "train" else split
        drawn = []
        for i, key in enumerate(keys):
            task = self._task_of(chains, i)
            batches = self.family.batches(generator(*key, word), task, num_steps, split)
            # a family without data has empty batches, whose tree would have no length K
            drawn.append(batches or {"step": torch.arange(num_steps)})

        joined = tree.tree_map(lambda *leaves: torch.stack(leaves, 1), drawn[0], *drawn[1:])
        return tree.to(joined, self.device)

    def run(
        self,
        theta: Tree,
        chains: Chains,
        batches: Tree,
        remat: bool = False,
        measured: Tree | None = None,
    ) -> tuple[Tensor, Chains]:
        """Make K inner steps of M chains.

        Args:
            theta: meta-parameters, a leading M on every leaf: each chain has its own.
            chains: the state to go on from.
            batches: leaves ``(K, M, ...)``; constants of a backward pass.
            remat: a backward pass runs every inner step again and so keeps the chains between
                steps only; that of compiled steps always does.
            measured: batches on which the returned losses are taken; None for those of training.

        Returns:
            tuple[Tensor, Chains]: losses ``(K, M)``, each taken before the update of its inner
            step, and the chains K inner steps on.
        """
        streams = [batches] if measured is None else [batches, measured]
        fixed = (theta, chains["task"])
        running = {name: chains[name] for name in RUNNING}

        if self._compiled_step is not None:
            with suppress(NotCompiledError):
                losses, running = self._run_compiled(
                    self._compiled_step, fixed, running, Inputs.of(streams)
                )
                return losses, {"task": chains["task"], **running}
        losses, running = self._run_plain(fixed, running, streams, remat or self.recompute)
        return losses, {"task": chains["task"], **running}

    def evaluate(self, chains: Chains) -> dict[str, Tensor]:
        """Held-out figures of every chain, ``(M,)`` each."""
        return vmap(self.family.evaluate)(chains["params"], chains["task"])

    def _run_compiled(
        self, step: Compiled, fixed: Fixed, running: Tree, inputs: Inputs
    ) -> tuple[Tensor, Tree]:
        is_differentiated = any(leaf.requires_grad for leaf in tree_leaves((fixed[0], running)))
        # a backward pass runs steps again, with layers that have one
        with forward_only():
            if torch.is_grad_enabled() and is_differentiated:
                return repeat_differentiably(step, self._pullback, fixed, running, inputs)
            outputs, running = repeat(step, fixed, running, inputs)
        return torch.stack([loss for (loss,) in outputs]), running

    def _run_plain(
        self, fixed: Fixed, running: Tree, streams: list[Tree], remat: bool
    ) -> tuple[Tensor, Tree]:
        losses = []
        for k in range(len(tree.leaves(streams[0])[0])):
            inputs = [tree.tree_map(lambda leaf, k=k: leaf[k], stream) for stream in streams]
            if remat:
                loss, running = recompute(self._batched_step, fixed, running, *inputs)
            else:
                loss, running = self._batched_step(fixed, running, *inputs)
            losses.append(loss)  # (M,)
        return torch.stack(losses), running

    def _step(
        self, fixed: Fixed, running: Tree, batch: Tree, *measured: Tree
    ) -> tuple[Tensor, Tree]:
        """One inner step of one chain; vmap adds the leading M."""
        theta, task = fixed
        params = running["params"]
        factors: tuple[Tree, ...] = ()  # an argument that only those who need it get
        if self.tapped is None:
            grads, loss = grad_and_value(self.family.loss)(params, batch, task)
        else:
            grads, loss, of_examples = self.tapped(params, batch, task)
            factors = (of_examples,)

        is_bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16):
            updates, opt_state = functional_call(
                self.optimizer, theta, (grads, running["opt_state"], params, loss, *factors)
            )

        if self.multipliers:
            updates = self._scaled(updates)
        for other in measured:
            loss = self.family.loss(params, other, task)
        after = {"params": tree.add(params, updates), "opt_state": opt_state}
        # keys in the order in which they came, so that all steps have one layout
        return loss, tree.tree_map(lambda old, new: new, running, after)

    def _scaled(self, updates: Tree) -> Tree:
        """The updates, each times its multiplier where it has one."""
        scaled = {name: value * updates[name] for name, value in self.multipliers.items()}
        return {**updates, **scaled}

    def _tap(self) -> TappedLoss:
        """The loss of the family with factors of the gradients of single examples."""
        source = torch.Generator().manual_seed(0)
        task = self.family.sample(source)
        params = self.family.init(source, task)
        batch = self.family.batch(source, task)

        example = [tree.to(part, self.device) for part in (params, batch, task)]
        tapped = TappedLoss(self.family.loss, *example)
        tapped.report(self.family.name)
        return tapped

    @staticmethod
    def _task_of(chains: Chains, i: int) -> Tree:
        return tree.tree_map(lambda leaf: leaf[i], chains["task"])

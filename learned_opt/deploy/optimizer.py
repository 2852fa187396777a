"""A meta-optimizer as a ``torch.optim.Optimizer``."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.deploy import hub, pretrained
from learned_opt.deploy.block_step import advance, blocks_of
from learned_opt.deploy.factor_hooks import watch
from learned_opt.deploy.finite import FiniteGate
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.deploy.fused_step import check_fused
from learned_opt.deploy.inputs import check_group, check_parameters, fingerprint, unwrap
from learned_opt.deploy.parity import check_parity
from learned_opt.deploy.saved_state import matched
from learned_opt.deploy.training_length import told
from learned_opt.deploy.weight_space import (
    Slot,
    WeightSpace,
    bind,
    check_space,
    labelled,
    slots_of,
)
from learned_opt.deploy.weights import save_theta
from learned_opt.optimizers.base import MetaOptimizer


class LearnedOptimizer(torch.optim.Optimizer):
    """Trains a model with a meta-optimizer: ``p <- (1 - lr * weight_decay * s) p + lr * update``.

    ``s`` is the root mean square of the update of the tensor, which has the part of the learning
    rate of ``torch.optim.AdamW``: ``weight_decay`` means the same there and here.

    One step does what an inner step of meta-training does, bit for bit where ``lr`` is 1 and
    ``weight_decay`` is 0. Parameters without a gradient stay as they are. A *separable*
    meta-optimizer, which treats each tensor by itself, skips them; to any other they are part of
    the weight space, with a gradient of zero. There is no ``maximize`` (negate the loss), no
    ``capturable`` and no ``differentiable``.

    One that reads the gradients of single examples puts hooks on the layers of the module. Its
    examples are those of all backward passes since gradients were last zero or None. The loss may
    be a mean, a sum, scaled or taken in parts, and gradients may be multiplied by one factor.

    Args:
        params: a module, ``module.named_parameters()``, tensors, or a list of param groups
            (``params``, ``lr``, ``weight_decay``). All float32 or all float64, on one device, not
            sharded. A meta-optimizer that is not separable needs the names, and all parameters that
            its spec names, frozen ones too.
        meta_optimizer: the optimizer to use, with its theta; copied.
        lr: multiple of the update, for schedulers and groups; 1 is what theta was trained with.
        weight_decay: between 0 and 1, as of ``torch.optim.AdamW``, where 0.01 is usual.
        fused: one kernel in place for all tensors, several times faster and with no temporary
            memory; for pointwise meta-optimizers on the CPU. Equal to rounding.
        compile: compile the step, once for every set of shapes. Equal to rounding.
        nonfinite: what becomes of a step whose gradients are not all finite, ``skip`` or ``raise``.
        num_steps: steps of the whole training, which Celo and VeLO must know; others do not.
        module: the module that ``params`` are of, where they are something else; for
            meta-optimizers that read the gradients of single examples, see ``factor_hooks``.

    Raises:
        ValueError: a value out of its range, a parameter that cannot be treated, or names that do
            not fit the spec.

    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = torch.ones(2, 8)
    >>> optimizer = LearnedOptimizer.from_pretrained("unf-transfer", model, (data,))
    >>> loss = model(data).square().mean()
    >>> loss.backward()
    >>> optimizer.step()
    >>> bool(model(data).square().mean() < loss)
    True
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        meta_optimizer: MetaOptimizer,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        fused: bool = False,
        compile: bool = False,
        nonfinite: str = "skip",
        num_steps: int | None = None,
        module: nn.Module | None = None,
    ) -> None:
        self.gate = FiniteGate(nonfinite)
        self.meta_optimizer = told(deepcopy(meta_optimizer).requires_grad_(False), num_steps)
        self.fused = fused
        self.compile = compile
        self.metadata: dict[str, Any] | None = None
        self._spaces: dict[Any, WeightSpace] = {}
        self.hooks = None
        module = params if isinstance(params, nn.Module) else module
        self._module = module if meta_optimizer.needs_factors else None

        if isinstance(params, nn.Module):  # whose names must be those that the spec has
            params = unwrap(params).named_parameters()
        defaults = {"lr": lr, "weight_decay": weight_decay, "theta": fingerprint(meta_optimizer)}
        super().__init__(params, defaults)

        if not self.meta_optimizer.separable:
            check_space(self.meta_optimizer.spec, self._slots())
            self._space(self._slots())
        if fused:
            check_fused(self.meta_optimizer, self._slots()[0].param, compile)
        self._watch()

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        # possible after construction only where the meta-optimizer is separable
        if self._spaces and not self.meta_optimizer.separable:
            raise ValueError(
                "this meta-optimizer works on one weight space, "
                "which a new param group would change."
            )
        check_group(param_group, self.defaults)
        super().add_param_group(param_group)
        try:
            check_parameters(labelled(self._slots()))
        except ValueError:
            self.param_groups.pop()  # what is refused leaves nothing behind
            raise
        if self.hooks is not None:
            self._watch()

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, loss: Tensor | float | None = None
    ) -> Any:
        """Update the parameters from their gradients.

        Args:
            closure: computes the loss and its gradients, and returns the loss.
            loss: the training loss at the parameters as they are, not scaled. Needed, unless there
                is a closure, by meta-optimizers that read it.

        Returns:
            The loss, if there was one.

        Raises:
            ValueError: the meta-optimizer reads the loss, and there was none; or a gradient is not
                finite, and ``nonfinite`` is ``raise``. Nothing is changed then.
        """
        # torch calls a closure at the parameters before the step, and so is the loss
        if closure is not None:
            if loss is not None:
                raise ValueError("step takes a closure or a loss, got both.")
            with torch.enable_grad():
                loss = closure()

        slots = self._slots()
        check_parameters(labelled(slots))  # the model may have been cast since the last step
        if not self.gate.passes(slots):
            return loss
        factors = None if self.hooks is None else self.hooks.collect(slots)
        for block in blocks_of(self.meta_optimizer.separable, slots, self.state, self.fused):
            advance(self._space(block), block, self.state, loss, self.fused, factors)
        return loss

    @override
    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        if self.hooks is not None:
            self.hooks.sets.clear()

    def close(self) -> None:
        """Take the hooks from the module, where there are any; there are no steps after it."""
        if self.hooks is not None:
            self.hooks.close()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, bit for bit; parameters are matched by their names.

        Raises:
            ValueError: it was written with another theta, or does not fit the parameters.
        """
        super().load_state_dict(matched(state_dict, self.param_groups))

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        model: nn.Module,
        example_inputs: Sequence[Tensor] | None = None,
        revision: str | None = None,
        trust: Sequence[str] = (),
        weights: str | Path | None = None,
        **options: Any,
    ) -> Self:
        """A trained optimizer for a model.

        Args:
            name: a packaged name, a folder or run folder that holds ``theta.safetensors``, or an id
                of the hub.
            model: what it will train.
            example_inputs: what ``model(*example_inputs)`` accepts, to infer the permutation spec;
                needed where the optimizer is not separable and was not trained on these very
                parameters.
            revision: branch, tag or commit on the hub.
            trust: modules to import where the files name classes of them, e.g. ``("mypkg",)``;
                nothing but classes of this package is imported otherwise.
            weights: the authors' file of ``celo``, ``celo_adam`` or ``velo``.
            options: further arguments of the constructor.

        Raises:
            ValueError: nothing has that name, or the files are not ours, damaged or of another
                format.
            ConnectionError: the hub cannot be reached and its cache does not hold the files.
        """
        modules = trusted_modules(trust)
        meta_optimizer, metadata = pretrained.load(name, revision, modules, weights)
        network = unwrap(model)
        fitted = pretrained.fit(meta_optimizer, metadata, network, example_inputs)
        optimizer = cls(network, fitted, **{"module": model, **options})
        optimizer.metadata = metadata
        return optimizer

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write theta and what is known about it to a folder that ``from_pretrained`` reads.

        Args:
            folder: made where it is missing.

        Returns:
            Path: the folder.

        Raises:
            ValueError: the optimizer was not made by ``from_pretrained``, or its steps are not
                those of meta-training.
        """
        if self.metadata is None:
            raise ValueError(
                "only an optimizer made by from_pretrained knows the config that its files must "
                "hold."
            )
        check_parity(self.meta_optimizer, LearnedOptimizer)
        save_theta(Path(folder), dict(self.meta_optimizer.named_parameters()), self.metadata)
        return Path(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """``save_pretrained`` to a model repository of the hub.

        Args:
            repo_id: ``owner/name``, made if there is none.
            options: of ``huggingface_hub.HfApi.create_repo``, e.g. ``private``, ``token``.

        Returns:
            str: address of the commit.

        Raises:
            ConnectionError: the hub cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            return hub.push(self.save_pretrained(folder), repo_id, **options)

    def __repr__(self) -> str:
        kind = type(self.meta_optimizer).__name__
        return super().__repr__().replace(type(self).__name__, f"LearnedOptimizer[{kind}]", 1)

    def __getstate__(self) -> dict[str, Any]:
        names = ("meta_optimizer", "fused", "compile", "metadata", "gate", "_module")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._spaces = {}  # compiled steps do not travel, nor do hooks
        self._watch()

    @property
    def skipped(self) -> int:
        """Steps that a gradient that is not finite has cost."""
        return self.gate.skipped

    def _slots(self) -> list[Slot]:
        return slots_of(self.param_groups, self.meta_optimizer.separable)

    def _watch(self) -> None:
        """Put hooks on the module, for meta-optimizers that read single examples."""
        self.hooks = watch(self.meta_optimizer, self._module, self._slots(), self.compile)

    def _space(self, slots: list[Slot]) -> WeightSpace:
        param = slots[0].param
        theta = next(self.meta_optimizer.parameters())
        # the model may have moved since the last step
        if (theta.device, theta.dtype) != (param.device, param.dtype):
            self.meta_optimizer.to(param)

        key = tuple((slot.name, slot.param.shape) for slot in slots)
        if key not in self._spaces:
            self._spaces[key] = bind(self.meta_optimizer, slots, self.compile)
        return self._spaces[key]

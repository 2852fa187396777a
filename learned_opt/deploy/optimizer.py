"""A meta-optimizer as a ``torch.optim.Optimizer``."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.compiled import uncompiled
from learned_opt.deploy.block_step import advance, blocks_of
from learned_opt.deploy.factor_hooks import watch
from learned_opt.deploy.finite import FiniteGate
from learned_opt.deploy.fused_step import check_fused
from learned_opt.deploy.inputs import (
    check_group,
    check_model,
    check_parameters,
    fingerprint,
    unwrap,
)
from learned_opt.deploy.packaged import Packaged
from learned_opt.deploy.parameter_names import names_in, with_names
from learned_opt.deploy.precision import arithmetic_type
from learned_opt.deploy.saved_state import fresh_states, matched, restore
from learned_opt.deploy.sharded import is_sharded
from learned_opt.deploy.sharded_step import advance_sharded, collect_states, spread_states
from learned_opt.deploy.tensor_rules import by_group, chosen, listing
from learned_opt.deploy.training_length import told
from learned_opt.deploy.weight_space import Slot, WeightSpaces, slots_of
from learned_opt.optimizers.base import MetaOptimizer


class LearnedOptimizer(Packaged):
    """Trains a model with a meta-optimizer: ``p <- (1 - lr * weight_decay * s) p + lr * update``.

    ``s`` is the root mean square of the update of the tensor, which has the part of the learning
    rate of ``torch.optim.AdamW``: ``weight_decay`` means the same there and here.

    One step does what an inner step of meta-training does, to rounding, where ``lr`` is 1 and
    ``weight_decay`` is 0; on the CPU by the kernels of steps that nobody differentiates, where a
    C++ compiler is there. Parameters without a gradient stay as they are. A *separable*
    meta-optimizer, which treats each tensor by itself, skips them; to any other they are part of
    the weight space, with a gradient of zero. There is no ``maximize`` (negate the loss), no
    ``capturable`` and no ``differentiable``.

    One that reads the gradients of single examples puts hooks on the layers of the module. Its
    examples are those of all backward passes since gradients were last zero or None. The loss may
    be a mean, a sum, scaled or taken in parts, and gradients may be multiplied by one factor.

    Args:
        params: a module, ``module.named_parameters()``, tensors, or a list of param groups
            (``params``, ``lr``, ``weight_decay``, ``rule``). Tensors of 16 bits keep a float32
            copy; state and arithmetic are float32, of float64 ones float64. A meta-optimizer that
            is not separable needs the names, and all parameters that its spec names, frozen ones
            too.
        meta_optimizer: the optimizer to use, with its theta; copied.
        lr: multiple of the update, for schedulers and groups; 1 is what theta was trained with.
        weight_decay: between 0 and 1, as of ``torch.optim.AdamW``, where 0.01 is usual.
        fused: one kernel in place for all tensors, several times faster and with no temporary
            memory; for pointwise meta-optimizers on the CPU. Equal to rounding.
        compile: compile the step, once for every set of shapes. Equal to rounding.
        nonfinite: what becomes of a step whose gradients are not all finite, ``skip`` or ``raise``.
        num_steps: steps of the whole training, which Celo and VeLO must know; others do not.
        module: the module that ``params`` are of, where they are something else: it gives tensors
            their names, and has the hooks of meta-optimizers that read single examples.
        rules: name of a parameter -> rule that it shall be treated by, ``adam`` or ``orthogonal``
            for those that have the choice; ``print`` shows the rule of each.

    Raises:
        ValueError: a value out of its range, a parameter that cannot be treated, names that do
            not fit the spec, or a rule that does not exist.

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
        rules: Mapping[str, str] | None = None,
    ) -> None:
        self.gate = FiniteGate(nonfinite)
        self.meta_optimizer = told(deepcopy(meta_optimizer).requires_grad_(False), num_steps)
        self.fused = fused
        self.compile = compile
        self.metadata = None
        self.rules = dict(rules or {})
        self.hooks = None
        module = params if isinstance(params, nn.Module) else module
        self._module = module if meta_optimizer.needs_factors else None
        self._spaces: WeightSpaces | None = None
        self._names = {} if module is None else names_in(unwrap(module))

        if isinstance(params, nn.Module):  # whose names must be those that the spec has
            check_model(unwrap(params), self.meta_optimizer.simplified().separable)
            params = unwrap(params).named_parameters()
        # nothing reads the momentum: it is there for schedules that cycle one
        rates = {"lr": lr, "weight_decay": weight_decay, "momentum": 0.0}
        super().__init__(params, {**rates, "theta": fingerprint(meta_optimizer)})

        spaces = self._weight_spaces()
        if fused:
            first = self.param_groups[0]["params"][0]
            dtype = arithmetic_type([first.dtype])
            like = torch.zeros(1, dtype=dtype, device=first.device)
            check_fused(spaces.theta(dtype, first.device), like, compile)
        self._watch()

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        is_constructed = self._spaces is not None
        # possible after construction only where the meta-optimizer is separable
        if self._spaces is not None and not self._spaces.separable:
            raise ValueError(
                "this meta-optimizer works on one weight space, "
                "which a new param group would change."
            )
        check_group(param_group, self.defaults)
        super().add_param_group(with_names(param_group, self._names, self.param_groups))
        try:
            check_parameters(self._slots(), separable=True)
            if is_constructed:
                self._spaces = None
                self._weight_spaces()
        except ValueError:
            self.param_groups.pop()  # what is refused leaves nothing behind
            raise
        if self.hooks is not None:
            self._watch()

    # the compiled parts are inside, see compile
    @uncompiled
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
        spaces = self._weight_spaces()
        # the model may have been cast or moved since the last step
        check_parameters(slots, spaces.separable)
        if not self.gate.passes(slots):
            return loss
        factors = None if self.hooks is None else self.hooks.collect(slots)
        whole = [slot for slot in slots if not is_sharded(slot.param)]
        for block in blocks_of(spaces.separable, whole, self.state, self.fused):
            advance(spaces.of(block), block, self.state, loss, self.fused, factors)
        if len(whole) < len(slots):
            advance_sharded(spaces, slots, self.state, loss, self.fused)
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

    @override
    def state_dict(self) -> dict[str, Any]:
        # readers of checkpoints (torch.distributed.checkpoint) want a state of every parameter
        state_dict = super().state_dict()
        slots = self._slots()
        spaces = self._weight_spaces()
        rules = by_group(spaces.bound, self.param_groups)
        for group, rules_of_group in zip(state_dict["param_groups"], rules, strict=True):
            if rules_of_group:
                group["param_rules"] = rules_of_group
        if self.state:
            state_dict["state"] |= spread_states(spaces, slots, self.state)
            state_dict["state"] |= fresh_states(spaces, slots, self.state)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, bit for bit; parameters are matched by their names.

        Raises:
            ValueError: it was written with another theta or by other rules, or does not fit the
                parameters.
        """
        rules = by_group(self._weight_spaces().bound, self.param_groups)
        state_dict = matched(state_dict, self.param_groups, rules)
        super().load_state_dict({**state_dict, "state": {}})
        restore(self.state, state_dict, self.param_groups)
        collect_states(self._slots(), self.state)

    def __repr__(self) -> str:
        kind = type(self.meta_optimizer).__name__
        text = super().__repr__().replace(type(self).__name__, f"LearnedOptimizer[{kind}]", 1)
        return text + listing(self._weight_spaces().bound, self._slots())

    def __getstate__(self) -> dict[str, Any]:
        names = ("meta_optimizer", "fused", "compile", "metadata", "gate", "rules", "_module")
        more = {name: self.__dict__[name] for name in (*names, "_names")}
        return {**super().__getstate__(), **more}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._spaces = None  # compiled steps do not travel, nor do hooks
        self._watch()

    @property
    def skipped(self) -> int:
        """Steps that a gradient that is not finite has cost."""
        return self.gate.skipped

    def _slots(self) -> list[Slot]:
        return slots_of(self.param_groups)

    def _watch(self) -> None:
        """Put hooks on the module, for meta-optimizers that read single examples."""
        self.hooks = watch(self.meta_optimizer, self._module, self._slots(), self.compile)

    def _weight_spaces(self) -> WeightSpaces:
        if self._spaces is None:
            slots = self._slots()
            ruled = self.meta_optimizer.with_rules(chosen(self.rules, slots))
            self._spaces = WeightSpaces(ruled, slots, self.compile)
        return self._spaces

"""A meta-optimizer as a ``torch.optim.Optimizer``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from learned_opt.core import tree
from learned_opt.core.compiled import Compiled
from learned_opt.core.tree import Tree
from learned_opt.deploy import state as layout
from learned_opt.deploy.inputs import Step, check_parameter, fingerprint, unwrap
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

BLOCK = (
    2**20
)  # entries that a separable optimizer works on at a time, which bounds its temporary memory


class _Slot(NamedTuple):
    """A parameter, its name, and the group that it is in."""

    name: str
    param: nn.Parameter
    group: dict[str, Any]


class _Space(NamedTuple):
    """A weight space: the meta-optimizer and its step on it, and a state of it without numbers."""

    optimizer: MetaOptimizer
    step: Callable[..., tuple[Tree, Tree]]
    like: Tree


class LearnedOptimizer(torch.optim.Optimizer):
    """Trains a model with a meta-optimizer: ``p <- (1 - lr * weight_decay) p + lr * update``.

    One step does what an inner step of meta-training does, bit for bit where ``lr`` is 1 and ``weight_decay`` is 0.
    Parameters without a gradient stay as they are. A *separable* meta-optimizer, which treats each tensor by itself,
    skips them; to any other they are part of the weight space, with a gradient of zero. There is no ``maximize``
    (negate the loss), no ``capturable`` and no ``differentiable``.

    Args:
        params: a module, ``module.named_parameters()``, tensors, or a list of param groups (``params``, ``lr``,
            ``weight_decay``). All float32 or all float64, on one device, not sharded. A meta-optimizer that is not
            separable needs the names, and all parameters that its spec names, frozen ones too.
        meta_optimizer: the optimizer to use, with its theta; copied.
        lr: multiple of the update, for schedulers and groups; 1 is what theta was trained with.
        weight_decay: share of each weight that a step takes away at ``lr`` 1. The rate ``w`` of ``torch.optim.AdamW``
            with learning rate ``a`` is ``a * w`` here.
        fused: one kernel in place for all tensors, several times faster and with no temporary memory; for pointwise
            meta-optimizers on the CPU. Equal to rounding.
        compile: compile the step, once for every set of shapes. Equal to rounding.

    Raises:
        ValueError: a value out of its range, a parameter that cannot be treated, or names that do not fit the spec.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        meta_optimizer: MetaOptimizer,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        fused: bool = False,
        compile: bool = False,
    ) -> None:
        self.meta_optimizer = deepcopy(meta_optimizer).requires_grad_(False)
        self.fused, self.compile, self.metadata, self._spaces = fused, compile, None, {}
        defaults = {"lr": lr, "weight_decay": weight_decay, "theta": fingerprint(meta_optimizer)}
        given = unwrap(params).named_parameters() if isinstance(params, nn.Module) else params
        super().__init__(given, defaults)
        if not self.meta_optimizer.separable:
            self._check_space()
        if fused:
            self._check_fused()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; possible after construction only where the meta-optimizer is separable."""
        if self._spaces and not self.meta_optimizer.separable:
            raise ValueError(
                "this meta-optimizer works on one weight space, which a new param group would change."
            )
        for name, low, high in (("lr", 0, float("inf")), ("weight_decay", 0, 1)):
            value = param_group.get(name, self.defaults[name])
            if not low <= value <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, got {value}.")
        super().add_param_group(param_group)
        slots = self._slots()
        for slot in slots:
            check_parameter(slot.name, slot.param, slots[0].param)

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, loss: Tensor | float | None = None
    ) -> Any:
        """Update the parameters from their gradients.

        Args:
            closure: computes the loss and its gradients, and returns the loss.
            loss: the training loss at the parameters as they are, not scaled. Needed, unless there is a closure, by
                meta-optimizers that read it.

        Returns:
            The loss, if there was one.

        Raises:
            ValueError: the meta-optimizer reads the loss, and there was none.
        """
        if closure is not None:
            if loss is not None:
                raise ValueError("step takes a closure or a loss, got both.")
            with torch.enable_grad():
                loss = closure()
        for block in self._blocks():
            self._advance(block, loss)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, bit for bit.

        Raises:
            ValueError: it was written with another theta, or does not fit the parameters.
        """
        own, theirs = (
            self.defaults["theta"],
            {group.get("theta") for group in state_dict["param_groups"]},
        )
        if theirs != {own}:
            raise ValueError(
                f"the state_dict was written with theta {theirs.pop()}, this optimizer has {own}."
            )
        super().load_state_dict(state_dict)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        model: nn.Module,
        example_inputs: Sequence[Tensor] | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """A trained optimizer for a model.

        Args:
            name: a packaged name, a folder or run folder that holds ``theta.safetensors``, or an id of the hub.
            model: what it will train.
            example_inputs: what ``model(*example_inputs)`` accepts, to infer the permutation spec; needed where the
                optimizer is not separable and was not trained on these very parameters.
            revision: branch, tag or commit on the hub.
            options: further arguments of the constructor.

        Raises:
            ValueError: nothing has that name, or the files are not ours, damaged or of another format.
            ConnectionError: the hub cannot be reached and its cache does not hold the files.
        """
        from learned_opt.deploy import pretrained

        found, metadata = pretrained.load(name, revision)
        network = unwrap(model)
        made = cls(network, pretrained.fit(found, metadata, network, example_inputs), **options)
        made.metadata = metadata
        return made

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write theta and what is known about it to a folder that ``from_pretrained`` reads; returns the folder."""
        from learned_opt.deploy import pretrained

        return pretrained.save(Path(folder), self.meta_optimizer, self._known())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """``save_pretrained`` to a model repository of the hub; returns its address.

        Args:
            repo_id: ``owner/name``, made if there is none.
            options: of ``huggingface_hub.HfApi.create_repo``, e.g. ``private``, ``token``.
        """
        from learned_opt.deploy import pretrained

        return pretrained.push(repo_id, self.meta_optimizer, self._known(), **options)

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, f"LearnedOptimizer[{self._kind}]", 1)

    def __getstate__(self) -> dict[str, Any]:
        own = {
            name: self.__dict__[name] for name in ("meta_optimizer", "fused", "compile", "metadata")
        }
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._spaces: dict[Any, _Space] = {}

    @property
    def _kind(self) -> str:
        return type(self.meta_optimizer).__name__

    def _known(self) -> dict[str, Any]:
        if self.metadata is None:
            raise ValueError(
                "only an optimizer made by from_pretrained knows the config that its files must hold."
            )
        return self.metadata

    def _slots(self) -> list[_Slot]:
        """All parameters, in order; a separable optimizer needs no names, so it takes numbers, which are unique."""
        slots: list[_Slot] = []
        for group in self.param_groups:
            names = group.get("param_names", range(len(slots), len(slots) + len(group["params"])))
            slots += [
                _Slot(str(name), param, group)
                for name, param in zip(names, group["params"], strict=True)
            ]
        if self.meta_optimizer.separable:
            return [slot._replace(name=str(number)) for number, slot in enumerate(slots)]
        return slots

    def _check_space(self) -> None:
        params = {slot.name: slot.param for slot in self._slots()}
        if keys := tree.difference(list(self.meta_optimizer.spec.axes), list(params)):
            raise ValueError(
                f"the meta-optimizer is bound to another weight space than these parameters: {keys}."
            )
        self.meta_optimizer.spec.sizes(params)
        self._space(self._slots())

    def _check_fused(self) -> None:
        """Take a step on a parameter of one entry."""
        trial = {
            "trial": torch.zeros(
                1, dtype=(like := self._slots()[0].param).dtype, device=like.device
            )
        }
        self.meta_optimizer.to(like)
        rates = {"trial": (1.0, 1.0)}
        if self.compile or not self.meta_optimizer.step_(
            trial, self.meta_optimizer.init_state(trial), trial, rates
        ):
            raise ValueError(
                "fused needs a meta-optimizer that has such a kernel (pointwise layers), parameters on the CPU, a C++ "
                f"compiler, and no compile; got {self._kind} on {like.device}, compile={self.compile}."
            )

    def _blocks(self) -> Iterator[list[_Slot]]:
        """What is advanced together: all parameters, or some that took equally many steps."""
        slots = self._slots()
        live = [slot for slot in slots if slot.param.grad is not None]
        for slot in live:
            if slot.param.grad is not None and slot.param.grad.is_sparse:
                raise ValueError(
                    f"sparse gradients are not supported, parameter {slot.name} has one."
                )
        if not self.meta_optimizer.separable:
            yield from [slots] if live else []
            return
        block: list[_Slot] = []
        for slot in sorted(live, key=self._count):
            full = (
                not self.fused
                and sum(other.param.numel() for other in block) + slot.param.numel() > BLOCK
            )
            if block and (full or self._count(slot) != self._count(block[0])):
                yield block
                block = []
            block.append(slot)
        if block:
            yield block

    def _count(self, slot: _Slot) -> int:
        """Steps that a parameter took."""
        return int(self.state[slot.param].get("step", 0))

    def _advance(self, slots: list[_Slot], loss: Tensor | float | None) -> None:
        """One step of some parameters."""
        space, count, device = self._space(slots), self._count(slots[0]), slots[0].param.device
        params = {slot.name: slot.param.detach() for slot in slots}
        grads = {
            s.name: torch.zeros_like(s.param) if s.param.grad is None else s.param.grad.detach()
            for s in slots
        }
        if count:
            state = layout.together(
                {slot.name: self.state[slot.param] for slot in slots}, space.like
            )
            state["step"] = state["step"].to(device)
        else:
            state = self.meta_optimizer.init_state(params)
        if self.fused:
            rates = {slot.name: _rates(slot) for slot in slots}
            space.optimizer.step_(grads, state, params, rates)
        else:
            losses = () if loss is None else (torch.as_tensor(loss, device=device).detach(),)
            with torch.autocast(device.type, enabled=False):
                updates, state = space.step(grads, state, params, *losses)
            _apply([slot for slot in slots if slot.param.grad is not None], updates)
        state["step"] = torch.tensor(count + 1)  # on the CPU, where reading it waits for nothing
        for slot, part in zip(slots, layout.by_parameter(state, params).values(), strict=True):
            self.state[slot.param] = part

    def _space(self, slots: list[_Slot]) -> _Space:
        param = slots[0].param
        theta = next(self.meta_optimizer.parameters())
        if (theta.device, theta.dtype) != (
            param.device,
            param.dtype,
        ):  # the model may have moved since
            self.meta_optimizer.to(param)
        key = tuple((slot.name, slot.param.shape) for slot in slots)
        if key not in self._spaces:
            bound = self.meta_optimizer
            if bound.separable:
                bound = bound.rebind(
                    PermutationSpec({n: tuple(f"{n}[{i}]" for i in range(len(s))) for n, s in key})
                )
            step = Step(bound)
            like = bound.init_state(
                {name: param.new_empty(shape, device="meta") for name, shape in key}
            )
            self._spaces[key] = _Space(bound, Compiled(step) if self.compile else step, like)
        return self._spaces[key]


def _rates(slot: _Slot) -> tuple[float, float]:
    """What the update and what the parameter are multiplied by."""
    rate = float(slot.group["lr"])
    return rate, 1 - rate * slot.group["weight_decay"]


def _apply(slots: list[_Slot], updates: Tree) -> None:
    """Decay the parameters and add their updates."""
    for slot in slots:
        rate, keep = _rates(slot)
        if keep != 1:
            slot.param.mul_(keep)
        slot.param.add_(updates[slot.name], alpha=rate)

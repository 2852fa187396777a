"""Any ``torch.optim`` class as a rule.

Those classes change tensors in place and keep their state to themselves; here one is made anew for
every step and every chain, given the state of the step before, and asked for the next. So chains
run one after another, not side by side: fit for comparisons, slow beside the project's own rules,
and not differentiable.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo


class TorchOptim(Rule):
    """A step of a PyTorch optimizer on one tensor; its learning rate is all that it has of theta.

    Args:
        path: the class, e.g. ``torch.optim.Adamax``; other packages' optimizers will do too.
        settings: its arguments but for the learning rate; plain values.

    Raises:
        ValueError: there is no such class, or it cannot take a step on one tensor with these
            settings.
    """

    class_paths = ("path",)  # arguments that name what is imported, which files may not choose

    def __init__(self, path: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        _optimizer_class(path)
        plain = {name: _plain(value) for name, value in (settings or {}).items()}
        self.path = path
        self.settings = json.dumps(plain)  # a custom operator takes text, but no dict

        try:
            # on the CPU wherever the optimizer is built: on the meta device no step can be taken
            with torch.device("cpu"):
                state = self._state_after_one_step(torch.zeros(2, 2))
        except (TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be used as a rule with the settings {self.settings}: {error}."
            ) from error
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{path} cannot be used as a rule: it keeps {name}, a {type(value).__name__}."
                )

    def _state_after_one_step(self, param: Tensor) -> dict[str, Any]:
        zeros = torch.zeros_like(param)
        return _step(zeros, zeros.clone(), 1e-3, None, self.path, self.settings)[1]

    @override
    def init_state(self, param: Tensor) -> RuleState:
        # only the shapes count: the first step itself starts without a state
        state = self._state_after_one_step(param)
        return {name: torch.zeros_like(value) for name, value in state.items()}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        names = ",".join(state)
        update, *values = torch_step(
            grad, param, info.lr, info.step, list(state.values()), names, self.path, self.settings
        )
        return update, dict(zip(state, values, strict=True))


@torch.library.custom_op("learned_opt::torch_step", mutates_args=())
def torch_step(
    grad: Tensor,
    param: Tensor,
    lr: Tensor,
    step: Tensor,
    state: list[Tensor],
    names: str,
    path: str,
    settings: str,
) -> list[Tensor]:
    """Update and next state of one tensor under the optimizer ``path``.

    The first step takes no state. An operator of its own hides from ``torch.compile`` and ``vmap``
    what happens inside.
    """
    by_name = dict(zip(names.split(","), state, strict=True)) if state else {}
    state_before = by_name if step.item() > 1 else None
    update, state_after = _step(grad, param, lr.item(), state_before, path, settings)
    return [update, *(state_after[name] for name in by_name)]


@torch_step.register_fake
def _(grad, param, lr, step, state, names, path, settings):
    return [torch.empty_like(param), *map(torch.empty_like, state)]


@torch_step.register_vmap
def _(info, in_dims, grad, param, lr, step, state, names, path, settings):
    """The chains run one after another."""

    def of_chain(tensor: Tensor, dim: int | None, i: int) -> Tensor:
        return tensor if dim is None else tensor.select(dim, i)

    tensors = list(zip((grad, param, lr, step), in_dims[:4], strict=True))
    state_tensors = list(zip(state, in_dims[4], strict=True))
    runs = []
    for i in range(info.batch_size):
        arguments = [of_chain(tensor, dim, i) for tensor, dim in tensors]
        state_of_chain = [of_chain(tensor, dim, i) for tensor, dim in state_tensors]
        runs.append(torch_step(*arguments, state_of_chain, names, path, settings))

    outputs = [torch.stack(column) for column in zip(*runs, strict=True)]
    return outputs, [0] * len(outputs)


def _step(
    grad: Tensor, param: Tensor, lr: float, state: RuleState | None, path: str, settings: str
) -> tuple[Tensor, dict[str, Any]]:
    """The update and the state behind it, of a new optimizer that is given the state before."""
    moved = param.detach().clone()
    moved.grad = grad.detach().clone()
    optimizer = _optimizer_class(path)([moved], lr=lr, **json.loads(settings))
    if state is not None:
        optimizer.state[moved].update({name: value.clone() for name, value in state.items()})

    optimizer.step()
    state_after = optimizer.state[moved]
    kept = {name: value for name, value in state_after.items() if value is not None}
    return moved - param, kept


def _optimizer_class(path: str) -> Any:
    """The class that a path names, any subclass of ``torch.optim.Optimizer``."""
    module, _, name = path.rpartition(".")
    try:
        candidate = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"path of an optimizer must name a class, e.g. torch.optim.Adamax, got {path!r}."
        ) from error
    if not (isinstance(candidate, type) and issubclass(candidate, torch.optim.Optimizer)):
        raise ValueError(f"path of an optimizer must name a torch.optim.Optimizer, got {path!r}.")
    return candidate


def _plain(value: Any) -> Any:
    """A value that JSON can hold; lists of a config come in classes of their own."""
    return list(value) if not isinstance(value, bool | int | float | str | None) else value

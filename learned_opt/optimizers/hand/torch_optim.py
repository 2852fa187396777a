"""Any ``torch.optim`` class as a rule.

Those classes change tensors in place and keep their state to themselves; here one is made anew for every step and
every chain, given the state of the step before, and asked for the next. So chains run one after another, not side by
side: fit for comparisons, slow beside the project's own rules, and not differentiable.
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo


class TorchOptim(Rule):
    """A step of a PyTorch optimizer on one tensor; the learning rate is all that it has of theta.

    Args:
        path: the class, e.g. ``torch.optim.Adamax``; other packages' optimizers will do too.
        settings: its arguments but for the learning rate; plain values.

    Raises:
        ValueError: there is no such class, or it cannot take a step on one tensor with these settings.
    """

    def __init__(self, path: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        _resolve(path)
        self.path, self.settings = (
            path,
            json.dumps({name: _plain(value) for name, value in (settings or {}).items()}),
        )
        try:
            after = self._first_state(torch.zeros(2, 2))
        except (TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be used as a rule with the settings {self.settings}: {error}."
            ) from error
        for name, value in after.items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{path} cannot be used as a rule: it keeps {name}, a {type(value).__name__}."
                )

    def _first_state(self, param: Tensor) -> dict[str, Any]:
        return _step(
            torch.zeros_like(param), torch.zeros_like(param), 1e-3, None, self.path, self.settings
        )[1]

    def init_state(self, param: Tensor) -> RuleState:
        """Zeros in the shapes that a first step leaves behind; that step itself starts without a state."""
        return {name: torch.zeros_like(value) for name, value in self._first_state(param).items()}

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        kept, names = list(state.values()), ",".join(state)
        update, *after = torch_step(
            grad, param, info.lr, info.step, kept, names, self.path, self.settings
        )
        return update, dict(zip(state, after, strict=True))


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
    """Update and next state of one tensor under the optimizer ``path``; the first step takes no state."""
    kept = dict(zip(names.split(","), state, strict=True)) if state else {}
    update, after = _step(grad, param, lr.item(), kept if step.item() > 1 else None, path, settings)
    return [update, *(after[name] for name in kept)]


@torch_step.register_fake
def _(grad, param, lr, step, state, names, path, settings):
    return [torch.empty_like(param), *map(torch.empty_like, state)]


@torch_step.register_vmap
def _(info, in_dims, grad, param, lr, step, state, names, path, settings):
    """One chain after another."""

    def chain(tensor: Tensor, dim: int | None, i: int) -> Tensor:
        return tensor if dim is None else tensor.select(dim, i)

    runs = []
    for i in range(info.batch_size):
        own = [chain(*pair, i) for pair in zip((grad, param, lr, step), in_dims[:4], strict=True)]
        kept = [chain(*pair, i) for pair in zip(state, in_dims[4], strict=True)]
        runs.append(torch_step(*own, kept, names, path, settings))
    outputs = [torch.stack(column) for column in zip(*runs, strict=True)]
    return outputs, [0] * len(outputs)


def _step(
    grad: Tensor, param: Tensor, lr: float, state: RuleState | None, path: str, settings: str
) -> tuple[Tensor, dict[str, Any]]:
    moved = param.detach().clone()
    moved.grad = grad.detach().clone()
    optimizer = _resolve(path)([moved], lr=lr, **json.loads(settings))
    if state is not None:
        optimizer.state[moved].update({name: value.clone() for name, value in state.items()})
    optimizer.step()
    after = {name: value for name, value in optimizer.state[moved].items() if value is not None}
    return moved - param, after


def _resolve(path: str) -> Callable[..., torch.optim.Optimizer]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"path of an optimizer must name a class, e.g. torch.optim.Adamax, got {path!r}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"path of an optimizer must name a torch.optim.Optimizer, got {path!r}.")
    return found


def _plain(value: Any) -> Any:
    return list(value) if not isinstance(value, bool | int | float | str | None) else value

"""The permutation spec of a task family's weights, proved on its own loss."""

import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils.hooks import RemovableHandle

from learned_opt.core.tree import Tree, tree_map
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

NUDGE = 0.1  # standard deviation of the noise on initial parameters: biases are 0 at first
TOLERANCE = 1e-4  # of losses in float32
# what is in the messages of torch about code that cannot be vectorised, and what to do
ADVICE = {
    "data-dependent control flow": (
        "it decides by the value of a tensor, as in `if y.sum() > 0`; use torch.where"
    ),
    ".item() on a Tensor": (
        "it takes a number out of a tensor, as in `if y.sum() > 0`; use torch.where"
    ),
    "random operation": "it draws at random in the forward pass; leave that out",
    "inplace arithmetic": "it changes a tensor in place; make a new one",
}

log = logging.getLogger(__name__)


def symmetry_of(family: TaskFamily) -> tuple[Tree, PermutationSpec]:
    """The family's permutation spec, its own or inferred from its loss.

    Returns:
        tuple[Tree, PermutationSpec]: the parameters on which the spec was proved, and the spec.

    Raises:
        ValueError: the spec does not fit, or is no symmetry of the loss; names the parameter and
            axis.
    """
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    initial = family.init(source, task)
    batch = family.batch(source, task)
    params = tree_map(lambda p: p + NUDGE * torch.randn(p.shape, generator=source), initial)
    quiet = family.without_noise(batch)

    def loss(values: Tree) -> list[Tensor]:
        return [family.loss(values, quiet, task)]

    _try_loss(family, params, batch, task)
    axes = family.permutation_axes()
    if axes is None:
        spec = infer_from_function(loss, params)
    else:
        spec = PermutationSpec(*axes).measure(params)

    with torch.no_grad():
        report = check_function(loss, params, spec, source, num_draws=1, tolerance=TOLERANCE)
    if not report.passed:
        finding = report.findings[0]
        raise ValueError(f"the permutation spec of task {family.name!r} is wrong: {finding}.")

    _log_axes(family.name, params, spec)
    return params, spec


def _try_loss(family: TaskFamily, params: Tree, batch: Tree, task: Tree) -> None:
    """Run the loss as the inner loop will, so that what is wrong with a network is said at once.

    Raises:
        ValueError: the loss fails, or is no finite number; names the network and its layer.
    """
    entered: list[str] = []
    network = getattr(family, "network", None)
    hooks = _watch(network, entered) if isinstance(network, nn.Module) else []

    chain = (params, batch, task)
    chains = [tree_map(_twice, part) for part in chain]
    try:
        with torch.no_grad():
            loss = family.loss(*chain)
        vmap(grad(family.loss))(*chains)
    except Exception as error:
        where = f"layer {entered[-1]!r} of " if entered and entered[-1] else ""
        kind = f"network {type(network).__name__}" if hooks else "its loss"
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        for sign, advice in ADVICE.items():
            if sign in str(error):
                reason = advice
        raise ValueError(
            f"task {family.name!r} cannot train: {where}{kind} fails: {reason}."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()

    if not loss.isfinite().all():
        raise ValueError(
            f"the loss of task {family.name!r} is {loss.item()} near its initial parameters; "
            "it must be finite."
        )


def _twice(leaf: Tensor) -> Tensor:
    return torch.stack([leaf, leaf])  # (2, *shape)


def _watch(network: nn.Module, entered: list[str]) -> list[RemovableHandle]:
    """Keep the names of the layers that a forward pass is in; the innermost is the last."""
    hooks = []
    for name, layer in network.named_modules():
        before = partial(_enter, entered, name)
        after = partial(_leave, entered)
        hooks += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    return hooks


def _enter(entered: list[str], name: str, *_: Any) -> None:
    entered.append(name)


def _leave(entered: list[str], *_: Any) -> None:
    entered.pop()


def _log_axes(task: str, params: Tree, spec: PermutationSpec) -> None:
    tensors = spec.view(params)
    for name, axes in spec.axes.items():
        shape = tuple(tensors[name].shape)
        log.debug("task %s: %s %s has axes %s", task, name, shape, ", ".join(axes))

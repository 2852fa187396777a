"""The permutation spec of a task family's weights, proved on its own loss."""

import logging

import torch
from torch import Tensor

from learned_opt.core.tree import Tree, tree_map
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

NUDGE = 0.1  # standard deviation of the noise on initial parameters: biases are 0 at first
TOLERANCE = 1e-4  # of losses in float32

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

    def loss(values: Tree) -> list[Tensor]:
        return [family.loss(values, batch, task)]

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


def _log_axes(task: str, params: Tree, spec: PermutationSpec) -> None:
    tensors = spec.view(params)
    for name, axes in spec.axes.items():
        shape = tuple(tensors[name].shape)
        log.debug("task %s: %s %s has axes %s", task, name, shape, ", ".join(axes))

"""The permutation spec of a task family's weights, proved on its own loss."""

import logging

import torch

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

log = logging.getLogger(__name__)


def symmetry_of(family: TaskFamily) -> tuple[Tree, PermutationSpec]:
    """The family's permutation spec, its own or inferred from its loss, and the parameters on which it was proved.

    Raises:
        ValueError: the spec does not fit, or is no symmetry of the loss; names the parameter and axis.
    """
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    params, batch = family.init(source, task), family.batch(source, task)
    params = tree.tree_map(
        lambda p: p + 0.1 * torch.randn(p.shape, generator=source), params
    )  # biases are 0 at first

    def loss(values: Tree) -> list[torch.Tensor]:
        return [family.loss(values, batch, task)]

    axes = family.permutation_axes()
    spec = (
        infer_from_function(loss, params)
        if axes is None
        else PermutationSpec(*axes).measure(params)
    )
    with torch.no_grad():
        report = check_function(
            loss, params, spec, source, num_draws=1, tolerance=1e-4
        )  # float32 losses
    if not report.passed:
        raise ValueError(
            f"the permutation spec of task {family.name!r} is wrong: {report.findings[0]}."
        )
    for name, names in spec.axes.items():
        log.debug(
            "task %s: %s %s has axes %s",
            family.name,
            name,
            tuple(params[name].shape),
            ", ".join(names),
        )
    return params, spec

r"""muP: networks whose training stays alike while their width grows, for any optimizer.

With the ratio r of a tensor's growing inputs to ``base_width``:

=======  =====================================  =========  =======================================
tensor   start                                  forward    update
=======  =====================================  =========  =======================================
input    as it is; embeddings of root mean      as it is   x 1
         square ``1 / sqrt(base_width)``
hidden   as it is: of variance 1 / inputs       as it is   x 1 / r, or another power, see
                                                           ``width_multipliers``
output   root mean square ``1 / base_width``    x 1 / r    x 1
vector   as it is                               as it is   x 1
=======  =====================================  =========  =======================================

So outputs start small, of the order ``1 / sqrt(inputs)``: where they started large at the base
width, narrow networks would have another loss to begin with. Logits of attention are divided by the
size of a head in place of its root: queries are multiplied by ``sqrt(base_width / size)``.
"""

from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core import checks
from learned_opt.core.tree import Tree
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.width_growth import INPUT, OUTPUT, growth_of
from learned_opt.inner.width_multipliers import update_multipliers
from learned_opt.optimizers.nowcast.roles import QUERY, reads_first_axis, roles_of
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import Params, TaskFamily, TaskParams, WrappedFamily


class MuP(WrappedFamily):
    """A task family whose network is parametrised by muP; its weights keep their names and shapes.

    Args:
        family: the problems.
        base_width: length of growing axes at which all ratios are 1.

    Raises:
        ValueError: ``base_width`` is below 1, or the permutation spec of the family is wrong.

    Source: Yang et al. 2022 (arXiv 2203.03466); Therien et al. 2024 (muLO, arXiv 2406.00153), for
    learned optimizers.
    """

    def __init__(self, family: TaskFamily, base_width: int = 64) -> None:
        checks.check_at_least(1, base_width=base_width)
        params, spec = symmetry_of(family)
        network = getattr(family, "network", None)
        network = network if isinstance(network, nn.Module) else None

        super().__init__(family)
        self.base_width = base_width
        self.growths = growth_of(spec, params, network)
        self.forward_multipliers = self._forward_multipliers(spec, params, network)
        self.embeddings = reads_first_axis(network) if network else set()

    def _forward_multipliers(
        self, spec: PermutationSpec, params: Tree, network: nn.Module | None
    ) -> dict[str, Tensor]:
        """Tensors that are multiplied before the network reads them, and with what."""
        multipliers = {}
        for name, growth in self.growths.items():
            if growth.kind == OUTPUT:
                multipliers[name] = torch.tensor(self.base_width / growth.fan_in)

        for name, roles in (roles_of(network) if network else {}).items():
            size = _head_size(spec, params, name) if QUERY in roles else 0
            if not size:
                continue
            factors = torch.ones(len(roles))
            factors[roles.index(QUERY)] = sqrt(self.base_width / size)
            rows = factors.repeat_interleave(params[name].shape[0] // len(roles))  # (outputs,)
            multipliers[name] = rows.reshape(-1, *[1] * (params[name].ndim - 1))
            bias = name.removesuffix("weight") + "bias"
            if bias in params and name.endswith("weight"):
                multipliers[bias] = rows
        return multipliers

    @override
    def effective(self, params: Params, task: TaskParams) -> Params:
        read = dict(params)
        for name, factor in self.forward_multipliers.items():
            read[name] = params[name] * factor
        return read

    def shrinkage(self, name: str) -> float:
        """By what pre-activations of queries shrink, on purpose, for logits that do not grow.

        Args:
            name: of weights; 1 where they make others.
        """
        factor = self.forward_multipliers.get(name)
        if factor is None or self.growths[name].kind == OUTPUT:
            return 1.0
        is_uniform = bool((factor == factor.flatten()[0]).all())
        return float(factor.flatten()[0]) if is_uniform else 1.0  # packed with keys and values

    @override
    def update_multipliers(self, scale: str) -> dict[str, float]:
        return update_multipliers(self.growths, scale, self.base_width)

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        params = dict(super().init(generator, task))
        for name, growth in self.growths.items():
            if growth.kind == OUTPUT:
                params[name] = _of_size(params[name], 1 / self.base_width)
            elif growth.kind == INPUT and name in self.embeddings:
                params[name] = _of_size(params[name], 1 / sqrt(self.base_width))
        return params

    @override
    def to(self, device: torch.device | str) -> Self:
        for name, factor in self.forward_multipliers.items():
            self.forward_multipliers[name] = factor.to(device)
        return super().to(device)

    @override
    def describe(self) -> dict[str, Any]:
        words = f"mup, base width {self.base_width}"
        return {**self.family.describe(), "parametrisation": words}


def _head_size(spec: PermutationSpec, params: Tree, name: str) -> int:
    """Size of a head, of the weights that make queries; 0 where it does not grow."""
    sizes = []
    view = spec.view(params)
    for axis, slot in enumerate(spec.slots(name) if name in spec.axes else ()):
        if slot == 0:  # (heads, size): the last one counts
            grows = spec.axes[name][axis] not in spec.fixed
            sizes.append(view[name].shape[axis] if grows else 0)
    return sizes[-1] if sizes else 0


def _of_size(tensor: Tensor, size: float) -> Tensor:
    """A tensor scaled to a root mean square; zeros stay zeros."""
    return tensor * (size / tensor.square().mean().sqrt().clamp_min(1e-30))


def standard(family: TaskFamily) -> TaskFamily:
    """The family as it is: what stands in a config in the place of ``MuP``."""
    return family

"""What is kept of the gradients of single examples between ``zero_grad`` and ``step``."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from learned_opt.deploy.weight_space import Slot
from learned_opt.optimizers import row_union
from learned_opt.optimizers.factor_sums import GRADIENT, FactorSums
from learned_opt.optimizers.factors import (
    MOMENTS,
    NUM_MOMENTS,
    ROWS,
    SQUARES,
    Factors,
    GradientSet,
)

FEW_ENTRIES = 4096  # of parameters whose gradients are kept to find their scale
CHANGED = 1e-2  # share of a gradient that only something else than one factor explains

log = logging.getLogger(__name__)


@dataclass
class _Set:
    """The set behind the gradient of one parameter.

    Args:
        factors: of all rows, or their sums.
        gradient: as backward passes gave it; only of parameters with few entries.
    """

    factors: Factors | FactorSums
    gradient: Tensor | None


class FactorSets:
    """The gradient sets of all parameters; backward passes add to them, a step reads them.

    Args:
        needs: what is read, of ``factors.NEEDS``. Without rows only sums over rows are kept.
        params: those that may have a set.
        group: process group over which DDP takes the mean of gradients, or None.
    """

    def __init__(
        self, needs: Collection[str], params: Sequence[Tensor], group: Any | None = None
    ) -> None:
        self.needs = needs
        self.group = group
        self.sets: dict[Tensor, _Set] = {}
        self.warned = False

        smallest = min((param.numel() for param in params), default=0)
        self.references = {p for p in params if p.numel() <= max(FEW_ENTRIES, smallest)}

    def add(self, param: Tensor, factors: Factors, gradient: Tensor) -> None:
        """Add the rows of a backward pass; autograd has not added its gradient yet.

        Args:
            param: the parameter.
            factors: of the pass.
            gradient: of the pass.
        """
        known = self.sets.get(param)
        # the set goes with the gradient, whoever has set it to zero or None
        if known is not None and (param.grad is None or not bool(param.grad.any())):
            known = None

        # bits are those of the sum in param.grad
        total = gradient.clone() if param in self.references else None
        if known is not None and known.gradient is not None:
            total = known.gradient + gradient

        if ROWS in self.needs:
            joined = factors
            if known is not None:
                assert isinstance(known.factors, Factors)
                joined = row_union.union(known.factors, factors)
        else:
            joined = FactorSums.of(factors, self.needs, param)
            if known is not None:
                assert isinstance(known.factors, FactorSums)
                joined = known.factors.plus(joined)
        self.sets[param] = _Set(joined, total)

    def clear(self) -> None:
        """Start new sets."""
        self.sets = {}

    def collect(self, slots: Sequence[Slot]) -> dict[str, GradientSet]:
        """The factors of parameters by name, without those that have none.

        Gradients may have been multiplied by one factor since: clipped by their norm, or taken back
        from the scale of ``GradScaler``. Factors are multiplied likewise.

        Raises:
            ValueError: processes took the mean of their gradients without a DDP module that this
                optimizer knows of.
        """
        sets: Mapping[Tensor, _Set] = self.sets if self.group is None else self._of_all_ranks(slots)
        scale = self._scale(sets)

        factors: dict[str, GradientSet] = {}
        for slot in slots:
            of_param = sets.get(slot.param)
            if of_param is None or slot.param.grad is None:
                continue
            if isinstance(of_param.factors, Factors):
                factors[slot.name] = row_union.scaled(of_param.factors, scale)
            else:
                sums = of_param.factors.scaled(scale)
                factors[slot.name] = sums.with_gradient(slot.param.grad.detach())
        return factors

    def _scale(self, sets: Mapping[Tensor, _Set]) -> float:
        """By which factor gradients differ from what backward passes gave."""
        before = []
        after = []
        for param, of_param in sets.items():
            if of_param.gradient is not None and param.grad is not None:
                before.append(of_param.gradient.flatten())
                after.append(param.grad.flatten())
        if not before:
            return 1.0

        left = torch.cat(before)
        right = torch.cat(after).to(left)
        if torch.equal(left, right):
            return 1.0
        square = left.dot(left)
        if not bool(square > 0):
            return 1.0

        scale = right.dot(left) / square
        rest = (right - scale * left).norm() / right.norm()
        if bool(rest > CHANGED):
            self._warn(float(rest))
        return float(scale)

    def _warn(self, rest: float) -> None:
        if self.group is None and _num_processes() > 1:
            raise ValueError(
                "gradients are not those of the examples of this process: give the optimizer the "
                "DistributedDataParallel module itself, so that processes share them."
            )
        if not self.warned:
            log.warning(
                "gradients were changed between backward and step by more than one factor "
                "(%.0f%% of their size): what is read of single examples is as it was before.",
                100 * rest,
            )
        self.warned = True

    def _of_all_ranks(self, slots: Sequence[Slot]) -> dict[Tensor, _Set]:
        """The sums over the rows of all processes, of the mean of their losses."""
        num_ranks = dist.get_world_size(self.group)
        parts: list[Tensor] = []
        for slot in slots:
            parts.extend(self._parts(slot.param).values())
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat, group=self.group)

        summed = {}
        offset = 0
        for slot in slots:
            values = {}
            for name, part in self._parts(slot.param).items():
                values[name] = flat[offset : offset + part.numel()].reshape(part.shape)
                offset += part.numel()
            num_rows = values.pop("num_rows")
            gradient = values.pop(GRADIENT, None)
            if bool(num_rows.any()):
                sums = FactorSums(num_rows, values).scaled(1 / num_ranks)
                gradient = None if gradient is None else gradient / num_ranks
                summed[slot.param] = _Set(sums, gradient)
        return summed

    def _parts(self, param: Tensor) -> dict[str, Tensor]:
        """What processes exchange about a parameter; zeros where it has no set here."""
        parts = {"num_rows": param.new_zeros(param.shape)}
        if param in self.references:
            parts[GRADIENT] = param.new_zeros(param.shape)
        if SQUARES in self.needs:
            parts[SQUARES] = param.new_zeros(param.shape)
        if MOMENTS in self.needs:
            parts[MOMENTS] = param.new_zeros(NUM_MOMENTS, *param.shape)

        known = self.sets.get(param)
        if known is not None:
            assert isinstance(known.factors, FactorSums)
            num_rows = torch.as_tensor(known.factors.num_rows)
            values = {**known.factors.sums, "num_rows": num_rows.expand(param.shape)}
            if known.gradient is not None:
                values[GRADIENT] = known.gradient
            parts = {name: values[name] for name in parts}
        return parts


def _num_processes() -> int:
    """Processes that work together, 1 where nobody has said so."""
    is_alone = not dist.is_available() or not dist.is_initialized()
    return 1 if is_alone else dist.get_world_size()

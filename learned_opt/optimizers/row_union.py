"""The rows of two batches as those of one, where both went through the same operations."""

from dataclasses import replace

import torch
from torch import Tensor

from learned_opt.optimizers.convolution_site import Convolution
from learned_opt.optimizers.factors import Factors
from learned_opt.optimizers.sites import Entrywise, Lookup, Product, RowOrder, Site


def union(first: Factors, second: Factors) -> Factors:
    """The factors of a parameter in a batch of which two parts were run one after the other.

    Args:
        first: of the first part.
        second: of the other.
    """
    num_rows = first.num_rows + second.num_rows
    if [type(site) for site in first.sites] != [type(site) for site in second.sites]:
        return Factors((*first.sites, *second.sites), num_rows)

    sites = []
    for pair in zip(first.sites, second.sites, strict=True):
        sites.append(_joined(*pair))
    return Factors(tuple(sites), num_rows)


def scaled(factors: Factors, factor: float) -> Factors:
    """The same rows, of a loss that is multiplied by a factor."""
    if factor == 1:
        return factors
    sites = [replace(site, gradients=factor * site.gradients) for site in factors.sites]
    return Factors(tuple(sites), factors.num_rows)


def _joined(first: Site, second: Site) -> Site:
    """The rows of two sites of one operation, in the order that one batch has."""
    num_rows = first.num_rows + second.num_rows
    order = _order(first, second)

    def rows_of_both(left: Tensor, right: Tensor, dim: int) -> Tensor:
        if order is None or order.examples_first:
            return torch.cat([left, right], dim)
        parts = []
        for part, site in ((left, first), (right, second)):
            assert site.order is not None  # else there is none of both
            parts.append(part.unflatten(dim, (-1, site.order.num_examples)))
        axis = dim + 1 if dim >= 0 else dim
        return torch.cat(parts, axis).flatten(axis - 1, axis)

    dim = 0
    changes: dict[str, Tensor | float] = {}
    left, right = first.gradients, second.gradients
    if isinstance(first, Product) and isinstance(second, Product):
        dim = -2
        changes["activations"] = rows_of_both(first.activations, second.activations, dim)
    elif isinstance(first, Convolution) and isinstance(second, Convolution):
        changes["activations"] = torch.cat([first.activations, second.activations])
    elif isinstance(first, Lookup) and isinstance(second, Lookup):
        changes["indices"] = rows_of_both(first.indices, second.indices, dim)
    elif isinstance(first, Entrywise) and isinstance(second, Entrywise):
        (left, left_factors), (right, right_factors) = _by_row(first), _by_row(second)
        if isinstance(first.activations, Tensor):
            changes["activations"] = rows_of_both(left_factors, right_factors, dim)

    gradients = rows_of_both(left, right, dim)
    return replace(first, gradients=gradients, num_rows=num_rows, order=order, **changes)


def _by_row(site: Entrywise) -> tuple[Tensor, Tensor]:
    """Gradients and activations with one axis of rows in front: ``(R, *reading)``."""
    every = torch.arange(site.num_rows, device=site.gradients.device)
    activations, gradients = site.rows(every)  # (entries, R, 1)
    assert activations is not None
    shape = (site.num_rows, *site.route.shape)
    return gradients.squeeze(2).T.reshape(shape), activations.squeeze(2).T.reshape(shape)


def _order(first: Site, second: Site) -> RowOrder | None:
    if first.order is None or second.order is None:
        return None
    both = _possible(first.order, first.num_rows) & _possible(second.order, second.num_rows)
    if not both:
        return None
    num_examples = first.order.num_examples + second.order.num_examples
    return RowOrder(num_examples, examples_first=max(both))


def _possible(order: RowOrder, num_rows: int) -> set[bool]:
    """Whether examples come first: both, where there is one example or one position."""
    if order.num_examples in (1, num_rows):
        return {True, False}
    return {order.examples_first}

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
    num_rows = first.num_rows + second.num_rows
    order = _order(first.order, second.order)
    if isinstance(first, Product) and isinstance(second, Product):
        activations = _cat_rows(first.activations, second.activations, first, second)
        gradients = _cat_rows(first.gradients, second.gradients, first, second)
        return replace(
            first, activations=activations, gradients=gradients, num_rows=num_rows, order=order
        )

    first_gradients, second_gradients = first.gradients, second.gradients
    changes: dict[str, Tensor | float] = {}
    if isinstance(first, Entrywise) and isinstance(second, Entrywise):
        first_gradients = _with_rows(first)
        second_gradients = _with_rows(second)
        if isinstance(first.activations, Tensor):
            left = first.activations.expand(first_gradients.shape)
            right = torch.as_tensor(second.activations).expand(second_gradients.shape)
            changes["activations"] = torch.cat([left, right])
    elif isinstance(first, Lookup) and isinstance(second, Lookup):
        changes["indices"] = torch.cat([first.indices, second.indices])
    elif isinstance(first, Convolution) and isinstance(second, Convolution):
        changes["activations"] = torch.cat([first.activations, second.activations])

    gradients = torch.cat([first_gradients, second_gradients])
    return replace(first, gradients=gradients, num_rows=num_rows, order=order, **changes)


def _with_rows(site: Entrywise) -> Tensor:
    """The gradients with an axis of rows in front, where the result has none."""
    is_single = tuple(site.gradients.shape) == site.route.shape
    return site.gradients.unsqueeze(0) if is_single else site.gradients


def _order(first: RowOrder | None, second: RowOrder | None) -> RowOrder | None:
    if first is None or second is None or first.examples_first != second.examples_first:
        return None
    return RowOrder(first.num_examples + second.num_examples, first.examples_first)


def _cat_rows(left: Tensor, right: Tensor, first: Site, second: Site) -> Tensor:
    """Rows ``(*G, R, channels)`` of both, in the order that one batch has."""
    orders = (first.order, second.order)
    if any(order is None or order.examples_first for order in orders):
        return torch.cat([left, right], -2)

    parts = []
    for part, order in zip((left, right), orders, strict=True):
        assert order is not None
        parts.append(part.unflatten(-2, (-1, order.num_examples)))
    return torch.cat(parts, -2).flatten(-3, -2)

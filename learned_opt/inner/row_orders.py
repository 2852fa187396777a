"""How the rows of a site follow from the examples of a batch: which of them vary fastest."""

import torch
from torch import Tensor

from learned_opt.optimizers.sites import RowOrder, Site

TOLERANCE = 1e-3  # of gradients, in units of the largest


def row_order(site: Site, rolled: Site, num_examples: int) -> RowOrder | None:
    """The order of the rows, by what they are after the examples were rolled by one.

    Args:
        site: of a batch.
        rolled: the same of the batch ``roll(1, 0)``.
        num_examples: of the batch.

    Returns:
        RowOrder | None: None where neither order explains the rows, as where examples draw noise
        by their number.
    """
    num_groups = len(site.sides()) if site.folds else 1
    num_rows = site.num_rows * num_groups
    if num_rows == num_examples:
        return RowOrder(num_examples, examples_first=True)
    if num_rows % num_examples or not site.lists_rows:
        return None

    before = _rows(site)
    after = _rows(rolled)
    slack = TOLERANCE * before.abs().max()
    for examples_first in (True, False):
        shape = (num_examples, -1) if examples_first else (-1, num_examples)
        moved = before.unflatten(0, shape).roll(1, 0 if examples_first else 1).flatten(0, 1)
        if bool(((after - moved).abs() <= slack).all()):
            return RowOrder(num_examples, examples_first)
    return None


def _rows(site: Site) -> Tensor:
    """The gradients of all rows, ``(rows, ...)``, groups first where they are more rows."""
    every = torch.arange(site.num_rows, device=site.gradients.device)
    gradients = site.rows(every).gradients  # (G, R, O)
    return gradients.flatten(0, 1) if site.folds else gradients.transpose(0, 1)

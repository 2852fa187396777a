"""Param groups by muP: the learning rates with which an optimizer carries over to wider models."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from learned_opt.core import checks
from learned_opt.deploy.inputs import unwrap
from learned_opt.inner.width_growth import growth_of
from learned_opt.inner.width_multipliers import update_multipliers
from learned_opt.optimizers.update_scale import SCALES
from learned_opt.symmetry.infer import infer_permutation_spec


def mup_groups(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    scale: str,
    base_width: int = 64,
    lr: float = 1.0,
) -> list[dict[str, Any]]:
    """Param groups of a model, whose ``lr`` has muP's multiplier of the updates in it.

    They are those of meta-training with ``parametrisation=mup``. Start and forward pass are the
    model's: outputs start with a root mean square of ``1 / base_width`` and are multiplied by
    ``base_width / width``, logits of attention divided by the size of a head.

    Args:
        model: what is trained.
        example_inputs: what ``model(*example_inputs)`` accepts, to infer which axes grow.
        scale: what the updates scale with already: ``update_scale`` of a meta-optimizer, ``entry``
            for ``torch.optim.AdamW``.
        base_width: length of hidden axes at which nothing is multiplied.
        lr: learning rate at the base width.

    Returns:
        list[dict[str, Any]]: ``params`` with names, and ``lr``; a group for each multiplier.

    Raises:
        ValueError: the scale is unknown, or ``base_width`` is below 1.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    >>> groups = mup_groups(model.append(nn.Linear(256, 2)), (torch.ones(1, 3),), "entry", lr=0.1)
    >>> {group["lr"]: [name for name, _ in group["params"]] for group in groups}[0.025]
    ['2.weight']
    >>> optimizer = torch.optim.AdamW(groups)
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be among {', '.join(SCALES)}, got {scale!r}.")
    checks.check_at_least(1, base_width=base_width)

    network = unwrap(model)
    params = dict(network.named_parameters())
    spec = infer_permutation_spec(network, *example_inputs)
    multipliers = update_multipliers(growth_of(spec, params, network), scale, base_width)

    groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, param in params.items():
        groups.setdefault(multipliers[name], []).append((name, param))
    return [{"params": named, "lr": lr * factor} for factor, named in groups.items()]

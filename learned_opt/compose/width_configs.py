"""Configs of one task at several widths of its network."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.overlay import lay_over
from learned_opt.core.errors import UsageError

FEWEST = 2  # widths that have a slope


def at_widths(cfg: DictConfig) -> dict[int, DictConfig]:
    """The config of the task at each width.

    The keys of ``grows`` that the network has are scaled together, so that the first of them (of a
    list, its first entry) is the width.

    Args:
        cfg: with ``widths``, ``grows`` and ``network``.

    Raises:
        UsageError: ``widths`` are no increasing whole numbers, two at least, or the network has
            none of the keys.

    >>> network = {"sizes": [32]}
    >>> cfg = OmegaConf.create({"widths": [64, 128], "grows": ["sizes"], "network": network})
    >>> {width: list(of_width.network.sizes) for width, of_width in at_widths(cfg).items()}
    {64: [64], 128: [128]}
    """
    widths = _checked(cfg.widths)
    network = cfg.get("network") or {}
    keys = [key for key in cfg.grows if key in network]
    if not keys:
        raise UsageError(
            f"grows must name keys of the network that grow with the width, got {list(cfg.grows)}; "
            f"this one has {', '.join(map(str, network)) or 'none'}."
        )

    first = network[keys[0]]
    base = first[0] if OmegaConf.is_list(first) else first
    configs = {}
    for width in widths:
        changes = dict.fromkeys(keys, f"x{width / base:.12f}")
        configs[width] = lay_over(cfg, {"network": changes}, source="coordinate-check")
    return configs


def _checked(widths: Any) -> list[int]:
    values = list(widths) if OmegaConf.is_list(widths) else []
    whole = all(isinstance(width, int) and not isinstance(width, bool) for width in values)
    if len(values) < FEWEST or not whole or values != sorted(set(values)) or values[0] < 1:
        raise UsageError(
            f"widths must be a list of {FEWEST} or more increasing whole numbers such as "
            f"[64,128,256], got {widths}."
        )
    return values

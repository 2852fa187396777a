"""Files of Celo, Celo-Adam and VeLO as their authors lay them out, with random numbers."""

from pathlib import Path

import numpy as np

from learned_opt.deploy.published_layout import Layout, bank_layout, scheduler_layout
from tests.helpers.flax_file import flax_bytes

LAYOUTS: dict[str, Layout] = {
    "celo": scheduler_layout(18, 64, 1) | bank_layout(1),
    "celo_adam": scheduler_layout(18, 64, None),
    "velo": scheduler_layout(30, 8, 3) | bank_layout(3),
}


def nested(arrays: dict) -> dict:
    """Maps in maps, from arrays by their keys."""
    tree: dict = {}
    for keys, array in arrays.items():
        branch = tree
        for key in keys[:-1]:
            branch = branch.setdefault(key, {})
        branch[keys[-1]] = array
    return tree


def write_authors_file(path: Path, name: str, scale: float = 0.1) -> Path:
    """The file of an optimizer, its numbers normal with this deviation."""
    source = np.random.default_rng(0)
    arrays = {}
    for keys, shape in LAYOUTS[name].items():
        arrays[keys] = source.normal(0, scale, shape).astype(np.float32)
    path.write_bytes(flax_bytes(nested(arrays)))
    return path

"""Mixtures of experts on disk, of which only the experts in use are kept in memory.

Legend: B examples, I inputs, O outputs.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tasks.networks.base import check_sizes
from tasks.networks.dispatch import refuse_nonfinite
from tasks.networks.experts import Experts
from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.prototypes import route

SETTINGS = (
    "in_features",
    "out_features",
    "num_experts",
    "depth",
    "width",
    "activation",
    "tree_arity",
    "temperature",
)


def save_moe(mixture: NearestPrototypeMoE, path: str | Path) -> None:
    """Write a mixture to one safetensors file, its settings in the header."""
    settings = json.dumps({name: getattr(mixture, name) for name in SETTINGS})
    tensors = {name: tensor.detach().contiguous() for name, tensor in mixture.state_dict().items()}
    save_file(tensors, path, metadata={"settings": settings})


def load_moe(
    path: str | Path, load: str = "all", max_active: int = 64
) -> "NearestPrototypeMoE | ActiveExperts":
    """Read a mixture from a file of ``save_moe``.

    Args:
        path: the file.
        load: ``all`` experts, as a module that can be trained, or only the ``active`` ones, for
            evaluation.
        max_active: most experts kept in memory, for ``active``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of ``save_moe``, or a value is out of its range.
    """
    if load not in ("all", "active"):
        raise ValueError(f"load must be 'all' or 'active', got {load!r}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no mixture at {path}.")

    settings = _read_settings(path)
    if load == "active":
        return ActiveExperts(path, settings["tree_arity"], max_active)

    mixture = NearestPrototypeMoE(**settings)
    mixture.load_state_dict(load_file(path), assign=True)  # as stored, in precision too
    return mixture


class ActiveExperts(nn.Module):
    """A mixture with its prototypes in memory and its experts on disk, read when inputs need them.

    Those that were used last are kept. Outputs are those of the whole mixture in evaluation.

    Args:
        path: a file of ``save_moe``.
        tree_arity: that of the mixture's routing tree.
        max_active: most experts kept in memory, besides the one at work.

    Raises:
        ValueError: max_active is not positive.

    Source: the claim of Kratsios et al. 2024 (arXiv 2402.03460) that only the expert in use need
    be loaded; how it is read is ours.
    """

    prototypes: Tensor

    def __init__(self, path: str | Path, tree_arity: int | None, max_active: int) -> None:
        super().__init__()
        check_sizes(max_active=max_active)
        self.path = Path(path)
        self.tree_arity = tree_arity

        with safe_open(path, framework="numpy") as file:
            prototypes = torch.from_numpy(file.get_tensor("prototypes"))  # (L, I)
            names = set(file.keys()) - {"prototypes"}
        self.register_buffer("prototypes", prototypes)
        self.names = sorted(names, key=_layer_of)
        self.expert = lru_cache(max_active)(self._read_expert)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, I) -> (B, O)``, one expert in use after the other.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        refuse_nonfinite("inputs", inputs)
        choice = route(inputs, self.prototypes, self.tree_arity)  # (B,)
        used, counts = choice.unique(return_counts=True)
        parts = choice.argsort().split(counts.tolist())

        outputs = []
        for index, part in zip(used.tolist(), parts, strict=True):
            expert = self.expert(index)
            outputs.append(expert(inputs[part].unsqueeze(0)).squeeze(0))  # (examples, O)

        in_order_of_inputs = torch.cat(parts).argsort()
        return torch.cat(outputs)[in_order_of_inputs]

    def _read_expert(self, index: int) -> Experts:
        """One expert's parameters.

        The file is opened anew for each, since the system may map far more of it than is read,
        and by numpy's reader, which maps it read-only: torch's maps it writable, which counts
        against limits on memory.
        """
        stacks: dict[str, list[Tensor]] = {"weights": [], "biases": [], "slopes": []}
        with safe_open(self.path, framework="numpy") as file:
            for name in self.names:
                kind, _ = name.split(".")
                rows = file.get_slice(name)[index : index + 1]
                stacks[kind].append(torch.from_numpy(rows))
        return Experts(**{kind: tuple(tensors) for kind, tensors in stacks.items()})


def _layer_of(name: str) -> int:
    """The layer of a parameter that is called ``weights.LAYER``, or likewise."""
    return int(name.split(".")[1])


def _read_settings(path: str | Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        settings = (file.metadata() or {}).get("settings")
    if settings is None:
        raise ValueError(f"{path} holds no settings of a mixture: write it with save_moe.")
    return json.loads(settings)

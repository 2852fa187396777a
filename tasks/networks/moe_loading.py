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
from tasks.networks.moe import Experts, NearestPrototypeMoE
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
    """Read a mixture.

    Args:
        path: a file of ``save_moe``.
        load: ``all`` experts, as a module that can be trained, or only the ``active`` ones, for evaluation.
        max_active: most experts kept in memory, for ``active``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of ``save_moe``, or a value is out of its range.
    """
    if load not in ("all", "active"):
        raise ValueError(f"load must be 'all' or 'active', got {load!r}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no mixture at {path}.")
    settings = _settings(path)
    if load == "active":
        return ActiveExperts(path, settings["tree_arity"], max_active)
    mixture = NearestPrototypeMoE(**settings)
    mixture.load_state_dict(load_file(path), assign=True)  # as stored, in precision too
    return mixture


class ActiveExperts(nn.Module):
    """A mixture of which the prototypes are in memory and the experts on disk, read when an input needs them.

    Those that were used last are kept. Results are those of the whole mixture in evaluation.

    Args:
        path: a file of ``save_moe``.
        tree_arity: of its routing tree.
        max_active: most experts kept in memory, besides the one at work.

    Raises:
        ValueError: max_active is not positive.
    """

    prototypes: Tensor

    def __init__(self, path: str | Path, tree_arity: int | None, max_active: int) -> None:
        super().__init__()
        check_sizes(max_active=max_active)
        self.path, self.tree_arity = Path(path), tree_arity
        with safe_open(path, framework="numpy") as file:
            self.register_buffer("prototypes", torch.from_numpy(file.get_tensor("prototypes")))
            self.names = sorted(
                set(file.keys()) - {"prototypes"}, key=lambda name: int(name.split(".")[1])
            )
        self.expert = lru_cache(max_active)(self._read)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, I) -> (B, O)``, one expert in use after the other.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        refuse_nonfinite("inputs", inputs)
        choice = route(inputs, self.prototypes, self.tree_arity)
        used, counts = choice.unique(return_counts=True)
        parts = choice.argsort().split(counts.tolist())
        outputs = [
            self.expert(i)(inputs[part].unsqueeze(0)).squeeze(0)
            for i, part in zip(used.tolist(), parts, strict=True)
        ]
        return torch.cat(outputs)[torch.cat(parts).argsort()]

    def _read(self, expert: int) -> Experts:
        """One expert's parameters.

        The file is opened anew for each, since the system may map far more of it than is read, and by numpy's reader,
        which maps it read-only: torch's maps it writable, which counts against limits on memory.
        """
        with safe_open(self.path, framework="numpy") as file:
            own = {
                name: torch.from_numpy(file.get_slice(name)[expert : expert + 1])
                for name in self.names
            }

        def stacks(kind: str) -> tuple[Tensor, ...]:
            return tuple(own[name] for name in self.names if name.startswith(kind))

        return Experts(stacks("weights."), stacks("biases."), stacks("slopes."))


def _settings(path: str | Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        found = (file.metadata() or {}).get("settings")
    if found is None:
        raise ValueError(f"{path} holds no settings of a mixture: write it with save_moe.")
    return json.loads(found)

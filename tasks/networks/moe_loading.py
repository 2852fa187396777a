"""Mixtures of experts on disk, of which only the experts in use are kept in memory.

Legend: B examples, I inputs, O outputs, A experts in use.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tasks.networks import prototypes
from tasks.networks.base import check_sizes
from tasks.networks.dispatch import dispatch, refuse_nonfinite
from tasks.networks.moe import Experts, NearestPrototypeMoE

SETTINGS = ("in_features", "out_features", "num_experts", "depth", "width", "activation", "tree_arity", "temperature")


def save_moe(mixture: NearestPrototypeMoE, path: str | Path) -> None:
    """Write a mixture to one safetensors file, its settings in the header."""
    settings = json.dumps({name: getattr(mixture, name) for name in SETTINGS})
    tensors = {name: tensor.detach().contiguous() for name, tensor in mixture.state_dict().items()}
    save_file(tensors, path, metadata={"settings": settings})


def load_moe(path: str | Path, load: str = "all", max_active: int = 64) -> "NearestPrototypeMoE | ActiveExperts":
    """Read a mixture.

    Args:
        path: a file of ``save_moe``.
        load: ``all`` experts, as a module that can be trained, or only the ``active`` ones, for evaluation.
        max_active: most experts in memory at a time, for ``active``.

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

    The file is mapped into memory for the length of a read. Experts that were used last are kept. Results are those of
    the whole mixture in evaluation.

    Args:
        path: a file of ``save_moe``.
        tree_arity: of its routing tree.
        max_active: most experts in memory at a time; a batch that needs more of them goes through in parts.

    Raises:
        ValueError: max_active is not positive.
    """

    prototypes: Tensor

    def __init__(self, path: str | Path, tree_arity: int | None, max_active: int) -> None:
        super().__init__()
        check_sizes(max_active=max_active)
        self.path, self.tree_arity, self.max_active = Path(path), tree_arity, max_active
        with safe_open(path, framework="numpy") as file:
            self.register_buffer("prototypes", torch.from_numpy(file.get_tensor("prototypes")))
            self.names = sorted(set(file.keys()) - {"prototypes"}, key=lambda name: int(name.split(".")[1]))
        self._held: OrderedDict[int, dict[str, Tensor]] = OrderedDict()

    @property
    def held(self) -> tuple[int, ...]:
        """Experts in memory, the one used last at the end."""
        return tuple(self._held)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, I) -> (B, O)``.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        refuse_nonfinite("inputs", inputs)
        if self.tree_arity is None:
            choice = prototypes.nearest(inputs, self.prototypes)
        else:
            levels = prototypes.tree_levels(self.prototypes, self.tree_arity)
            choice = prototypes.descend(inputs, levels, self.tree_arity)
        parts, members = [], []
        for wanted in choice.unique().split(self.max_active):
            member = torch.isin(choice, wanted).nonzero().squeeze(1)
            groups = dispatch(torch.searchsorted(wanted, choice[member]))
            experts = self._fetch(wanted.tolist()).pick(groups.used)
            parts.append(groups.combine(experts(groups.pack(inputs[member]))))
            members.append(member)
        return torch.cat(parts)[torch.cat(members).argsort()]

    def _fetch(self, wanted: Sequence[int]) -> Experts:
        """Stack experts, reading those that are not held and dropping the ones used longest ago."""
        missing = [expert for expert in wanted if expert not in self._held]
        for expert in wanted:
            if expert in self._held:
                self._held.move_to_end(expert)
        for _ in range(len(self._held) + len(missing) - self.max_active):
            self._held.popitem(last=False)
        if missing:
            # numpy's reader maps the file read-only, torch's as writable, which counts against limits on memory
            with safe_open(self.path, framework="numpy") as file:
                slices = {name: file.get_slice(name) for name in self.names}
                for expert in missing:
                    self._held[expert] = {name: torch.from_numpy(rows[expert]) for name, rows in slices.items()}

        def stack(kind: str) -> tuple[Tensor, ...]:
            own = [name for name in self.names if name.startswith(kind)]
            return tuple(torch.stack([self._held[expert][name] for expert in wanted]) for name in own)

        return Experts(stack("weights."), stack("biases."), stack("slopes."))


def _settings(path: str | Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        found = (file.metadata() or {}).get("settings")
    if found is None:
        raise ValueError(f"{path} holds no settings of a mixture: write it with save_moe.")
    return json.loads(found)

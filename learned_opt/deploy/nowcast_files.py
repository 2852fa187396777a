"""Trained networks for nowcasting, from safetensors files in their authors' names."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.files import write_whole
from learned_opt.deploy.theta_header import read_header
from learned_opt.optimizers.nowcast.networks import EntryNetwork, GraphNetwork

MAX_NUMBERS = 2**26
UNREAD = "gnn.convs.2."  # a layer of the authors' file that nothing reads
EMBEDDING = "layer_embed.weight"  # (roles, H)
KINDS = {True: GraphNetwork, False: EntryNetwork}


def load_network(path: Path) -> EntryNetwork | GraphNetwork:
    """The network of a file; its tensors tell which of the two, and how wide.

    Args:
        path: a safetensors file.

    Raises:
        ValueError: there is none, it is damaged, or it holds no such network.
    """
    if not path.is_file():
        raise ValueError(f"weights must be a safetensors file, but there is none at {path}.")
    header = read_header(path)
    header = {name: leaf for name, leaf in header.items() if not name.startswith(UNREAD)}
    if tree.num_elements(header) > MAX_NUMBERS:
        raise ValueError(
            f"weights {path} must hold at most {MAX_NUMBERS} numbers, they hold "
            f"{tree.num_elements(header)}."
        )

    network = _network_like(header, path)
    numbers = _numbers(path)
    network.load_state_dict({name: numbers[name].float() for name in header})
    return network.requires_grad_(False).eval()


def save_network(path: Path, network: EntryNetwork | GraphNetwork) -> None:
    """Write a network to a file that ``load_network`` reads."""
    state = {name: leaf.detach().cpu().contiguous() for name, leaf in network.state_dict().items()}
    write_whole(path, save(state))


def _network_like(header: dict[str, Tensor], path: Path) -> EntryNetwork | GraphNetwork:
    """A network of the shapes of a file, without its numbers."""
    embedding = header.get(EMBEDDING)
    if embedding is None or embedding.ndim != 2:
        raise ValueError(
            f"weights {path} must be of a nowcasting network, whose {EMBEDDING} has two axes."
        )
    kind = KINDS[any(name.startswith("gnn.") for name in header)]
    hidden_size = embedding.shape[1]
    with torch.device("meta"):  # so that a file of a wrong width takes no memory
        expected = kind(hidden_size).state_dict()
    if keys := tree.difference(list(expected), list(header)):
        raise ValueError(f"weights {path} must be of a nowcasting network: {keys}.")
    for name, leaf in expected.items():
        if leaf.shape != header[name].shape:
            raise ValueError(
                f"{name} of weights {path} must have shape {tuple(leaf.shape)}, got "
                f"{tuple(header[name].shape)}."
            )

    with torch.random.fork_rng(devices=[]):
        return kind(hidden_size)


def _numbers(path: Path) -> dict[str, Tensor]:
    try:
        numbers = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"weights {path} are damaged: {error}.") from error
    for name, leaf in numbers.items():
        if not leaf.isfinite().all():
            raise ValueError(f"{name} of weights {path} must hold finite numbers.")
    return numbers

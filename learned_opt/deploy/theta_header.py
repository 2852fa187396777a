"""The header of a theta file: it bounds an optimizer before anything is allocated."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from learned_opt.core import tree
from learned_opt.optimizers.base import MetaOptimizer

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# a constructor may register a tensor or module anew, but not that often
SLACK = 4
SPARE = 1000


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a theta file on the meta device: shapes and dtypes without numbers.

    Raises:
        ValueError: the file is damaged, or a tensor does not hold real numbers.
    """
    header = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                part = file.get_slice(name)
                dtype = DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise ValueError(
                        f"{name!r} of theta {path} must hold floating-point numbers, "
                        f"it is of type {part.get_dtype()}."
                    )
                header[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")
    except SafetensorError as error:
        raise ValueError(f"theta {path} is damaged: {error}.") from error
    return header


def build_on_meta(
    build: Callable[[], MetaOptimizer], header: dict[str, Tensor], source: str
) -> MetaOptimizer:
    """An optimizer without numbers; one that outgrows its theta file is stopped while it is built.

    Args:
        build: makes the optimizer.
        header: of its theta file.
        source: the file, for the message.

    Raises:
        ValueError: what ``build`` raises, or there are more meta-parameters than in the file.
    """
    with torch.device("meta"), _bounded(header, source):
        return build()


@contextmanager
def _bounded(header: dict[str, Tensor], source: str) -> Iterator[None]:
    """Stop constructors of modules with many more tensors, entries or modules than a file has."""
    most_tensors = SLACK * len(header) + SPARE
    most_entries = SLACK * tree.num_elements(header) + SPARE
    thread = threading.get_ident()  # others may build modules meanwhile
    counts = {"tensors": 0, "entries": 0, "modules": 0}

    def check() -> None:
        too_many_entries = counts["entries"] > most_entries
        if too_many_entries or max(counts["tensors"], counts["modules"]) > most_tensors:
            raise ValueError(
                f"meta_optimizer beside theta {source} describes a larger optimizer than "
                f"the {tree.num_elements(header)} numbers in {len(header)} tensors of the file."
            )

    def on_parameter(module: nn.Module, name: str, parameter: Any) -> None:
        if threading.get_ident() == thread and isinstance(parameter, Tensor):
            counts["tensors"] += 1
            counts["entries"] += parameter.numel()
            check()

    def on_module(module: nn.Module, name: str, child: Any) -> None:
        if threading.get_ident() == thread:
            counts["modules"] += 1
            check()

    hooks = [
        torch_module.register_module_parameter_registration_hook(on_parameter),
        torch_module.register_module_module_registration_hook(on_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

"""Which device a run is on."""

import torch


def resolve_device(name: str) -> str:
    """``auto`` is the GPU when there is one.

    Raises:
        ValueError: an unknown name, or cuda where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name

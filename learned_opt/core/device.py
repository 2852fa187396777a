"""Which device a run is on."""

import torch


def resolve_device(name: str) -> str:
    """Turn a device setting into the name of a device of torch.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``; ``auto`` is the GPU where there is one.

    Returns:
        str: ``cpu`` or ``cuda``.

    Raises:
        ValueError: an unknown name, or cuda where there is none.

    >>> resolve_device("cpu")
    'cpu'
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here.")

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name

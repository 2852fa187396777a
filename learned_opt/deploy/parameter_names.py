"""Names of the parameters in the groups that users hand over."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


def names_in(module: nn.Module | None) -> dict[Tensor, str]:
    """Parameter -> name in a module; the first one of a parameter that has several."""
    return {} if module is None else {param: name for name, param in module.named_parameters()}


def with_names(
    group: Mapping[str, Any], known: Mapping[Tensor, str], groups: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A param group whose parameters have names, all or none, as the earlier groups do.

    torch takes names for all parameters of an optimizer, or for none.

    Args:
        group: of ``torch.optim``, tensors or pairs of name and tensor.
        known: parameter -> its name in the model.
        groups: the earlier ones.

    >>> layer = nn.Linear(1, 1)
    >>> [name for name, _ in with_names({"params": [layer.bias]}, names_in(layer), [])["params"]]
    ['bias']
    """
    pairs: list[tuple[str | None, Any]] = []
    for param in _listed(group["params"]):
        name, tensor = param if isinstance(param, tuple) else (None, param)
        if name is None and isinstance(tensor, Tensor):
            name = known.get(tensor)
        pairs.append((name, tensor))

    if groups:
        is_named = "param_names" in groups[0]
    else:
        is_named = any(name is not None for name, _ in pairs)
    if not is_named:
        return {**group, "params": [tensor for _, tensor in pairs]}

    number = sum(len(earlier["params"]) for earlier in groups)
    named = []
    for position, (name, tensor) in enumerate(pairs, number):
        named.append((str(position) if name is None else name, tensor))
    return {**group, "params": named}


def _listed(params: Any) -> Iterable[Any]:
    return [params] if isinstance(params, Tensor) else params

"""From a network to its quadratic counterpart."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from tasks.networks.quadratic import QuadraticConv2d, QuadraticLinear
from tasks.networks.quadratic_layer import QuadraticLayer

REPLACED = (nn.Linear, nn.Conv2d)
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def quadratize(module: nn.Module, keep: Collection[str] = (), **options: Any) -> nn.Module:
    """Replace linear and convolutional layers by quadratic ones that start as the same function.

    The weights of a replaced layer become those of the branch that the identity start leaves
    linear: the same ``Parameter`` objects, so that tied weights stay tied. Subclasses of torch's
    layers are left as they are.

    Args:
        module: changed in place, unless it is itself a layer to replace.
        keep: names of layers to leave as they are, as in ``named_modules()``.
        options: ``terms`` and ``recompute`` of the new layers.

    Returns:
        nn.Module: ``module``, or the layer in its place.

    Raises:
        ValueError: a name of ``keep`` is not a layer to replace, or there is nothing to replace.

    Source: the conversion of ReLinear (Fan et al.); QuadraLib keeps the first convolution and the
    shortcuts of a ResNet linear.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> before = network(torch.ones(1, 4))
    >>> quadratize(network, keep=["2"])[0].terms
    ['product', 'linear']
    >>> torch.equal(network(torch.ones(1, 4)), before)
    True
    """
    layers = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if type(layer) in REPLACED:
            layers[name] = layer

    unknown = sorted(set(keep) - set(layers))
    if unknown:
        raise ValueError(
            f"keep must hold names of layers to replace, got {unknown}; there are {list(layers)}."
        )
    replaced = {name: layer for name, layer in layers.items() if name not in keep}
    if not replaced:
        raise ValueError(
            f"{type(module).__name__} has no linear or convolutional layer to replace."
        )

    # by layer, not by name: a layer may stand under several names
    new_layers = {layer: _quadratic(layer, options) for layer in replaced.values()}
    if "" in replaced:
        return new_layers[module]
    for name, layer in replaced.items():
        module.set_submodule(name, new_layers[layer])
    return module


def _quadratic(layer: Any, options: Mapping[str, Any]) -> QuadraticLayer:
    """A quadratic layer that computes what ``layer`` does."""
    factory = {"device": layer.weight.device, "dtype": layer.weight.dtype, **options}
    if isinstance(layer, nn.Linear):
        new: QuadraticLayer = QuadraticLinear(layer.in_features, layer.out_features, **factory)
    else:
        geometry = {name: getattr(layer, name) for name in GEOMETRY}
        new = QuadraticConv2d(layer.in_channels, layer.out_channels, **geometry, **factory)

    setattr(new, f"weight_{new.lead}", layer.weight)
    if layer.bias is not None:
        setattr(new, f"bias_{new.lead}", layer.bias)
    return new.train(layer.training)

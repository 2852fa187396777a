"""The factors of the parameters of single layers: one rule for each kind of module of torch.nn.

Legend: B examples, R rows, C channels.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Size, Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from learned_opt.deploy.module_call import ModuleCall
from learned_opt.optimizers.convolution_site import Convolution
from learned_opt.optimizers.routes import Route
from learned_opt.optimizers.sites import Entrywise, Lookup, Product, RowOrder, Site

Sites = dict[str, Site]
NUM_ROUTES = 256  # shapes of parameters whose positions are kept


def _transposed(reading: Tensor, power: int) -> Tensor:
    del power
    return reading.mT


@lru_cache(NUM_ROUTES)
def _route(shape: Size, transposed: bool = False) -> Route:
    return Route.along(tuple(shape), _transposed if transposed else None)


def linear(call: ModuleCall) -> Sites:
    """``nn.Linear``."""
    weight = cast(nn.Linear, call.module).weight
    inputs, gradients = _first(call, weight), _gradient(call, weight)
    order = _order(inputs.shape[:-1], call.num_examples)
    rows = inputs if inputs.ndim == 2 else inputs.reshape(-1, inputs.shape[-1])
    gradients = gradients.reshape(len(rows), -1)

    route = _route(weight.shape, transposed=True)
    product = Product(route, gradients, len(rows), rows, order=order)
    return {"weight": product, "bias": _summand(gradients, order)}


def embedding(call: ModuleCall) -> Sites:
    """``nn.Embedding``."""
    module = cast(nn.Embedding, call.module)
    if module.scale_grad_by_freq:
        return {}
    indices = call.tensors[0]
    order = _order(indices.shape, call.num_examples)
    gradients = _gradient(call, module.weight).reshape(indices.numel(), -1)
    padding = -1 if module.padding_idx is None else module.padding_idx

    route = _route(module.weight.shape)
    rows = indices.reshape(-1)
    return {"weight": Lookup(route, gradients, len(rows), rows, padding, order=order)}


def convolution(call: ModuleCall) -> Sites:
    """``nn.Conv1d`` and its kin, transposed ones, too."""
    module = cast(_ConvNd, call.module)
    transposed = isinstance(module, _ConvTransposeNd)
    args, kwargs = call.arguments
    if transposed and len(args) + len(kwargs) > 1:
        return {}  # an output size, which changes the padding
    images, gradients = _first(call, module.weight), _gradient(call, module.weight)
    if images.ndim == module.weight.ndim - 1:
        images, gradients = images.unsqueeze(0), gradients.unsqueeze(0)

    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        images = functional.pad(images, module._reversed_padding_repeated_twice, mode)
        padding = (0,) * len(module.stride)
    settings = (module.stride, padding, module.dilation, transposed)

    over = images if transposed else gradients  # a transposed one reads each pixel once
    num_rows = len(images) * over.shape[2:].numel()
    order = _order(images.shape[:1], call.num_examples)
    route = _route(module.weight.shape)
    patches = Convolution(
        route,
        gradients,
        num_rows,
        images,
        *settings,
        tuple(module.output_padding),
        module.groups,
        order=order,
    )
    return {"weight": patches, "bias": _summand(gradients.movedim(1, -1), order)}


def layer_norm(call: ModuleCall) -> Sites:
    """``nn.LayerNorm`` and ``nn.RMSNorm``: the axes that they norm are the last ones."""
    module = cast(nn.LayerNorm, call.module)
    inputs = _first(call, module.weight)
    shape = [*module.normalized_shape]
    if isinstance(module, nn.RMSNorm):
        normed = functional.rms_norm(inputs, shape, eps=module.eps)
    else:
        normed = functional.layer_norm(inputs, shape, eps=module.eps)
    return _gain(call, normed, _gradient(call, module.weight))


def group_norm(call: ModuleCall) -> Sites:
    """``nn.GroupNorm``."""
    module = cast(nn.GroupNorm, call.module)
    inputs = _first(call, module.weight)
    normed = functional.group_norm(inputs, module.num_groups, eps=module.eps)
    gradients = _gradient(call, module.weight)
    return _gain(call, normed.movedim(1, -1), gradients.movedim(1, -1))


def batch_norm(call: ModuleCall) -> Sites:
    """``nn.BatchNorm1d`` and its kin: rows share the statistics that they are normed with."""
    module = cast(nn.BatchNorm1d, call.module)
    inputs = _first(call, module.weight)
    mean, var = module.running_mean, module.running_var
    if call.training or mean is None:
        normed = functional.batch_norm(inputs, None, None, training=True, eps=module.eps)
    else:
        normed = functional.batch_norm(inputs, mean, var, eps=module.eps)
    gradients = _gradient(call, module.weight)
    return _gain(call, normed.movedim(1, -1), gradients.movedim(1, -1))


def prelu(call: ModuleCall) -> Sites:
    """``nn.PReLU``: the slope is read where inputs are not positive."""
    weight = cast(nn.PReLU, call.module).weight
    inputs, gradients = _first(call, weight), _gradient(call, weight)
    gradients = torch.where(inputs > 0, torch.zeros_like(gradients), gradients)
    if inputs.ndim > 1 and len(weight) > 1:
        inputs, gradients = inputs.movedim(1, -1), gradients.movedim(1, -1)
    num_rows = inputs.numel() // weight.numel()
    order = _order(inputs.shape[:1], call.num_examples)
    return {"weight": Entrywise(_route(weight.shape), gradients, num_rows, inputs, order=order)}


# the first class that a module is an instance of counts
RULES: dict[type[nn.Module], Callable[[ModuleCall], Sites]] = {
    nn.Linear: linear,
    nn.Embedding: embedding,
    _ConvNd: convolution,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: layer_norm,
    nn.GroupNorm: group_norm,
    _BatchNorm: batch_norm,
    nn.PReLU: prelu,
}


def rule_of(module: nn.Module) -> Callable[[ModuleCall], Sites] | None:
    """The rule of a module, None where there is none."""
    for kind, rule in RULES.items():
        if isinstance(module, kind):
            return rule
    return None


def _first(call: ModuleCall, like: Tensor) -> Tensor:
    return call.tensors[0].to(like.dtype)  # autocast may have computed in fewer bits


def _gradient(call: ModuleCall, like: Tensor) -> Tensor:
    return call.gradients[0].to(like.dtype)


def _summand(gradients: Tensor, order: RowOrder | None) -> Site:
    """A bias of the last axis."""
    num_rows = gradients.numel() // gradients.shape[-1]
    return Entrywise(_route(gradients.shape[-1:]), gradients, num_rows, 1.0, order=order)


def _gain(call: ModuleCall, normed: Tensor, gradients: Tensor) -> Sites:
    """Gain and bias of a norm, of the last axes."""
    shape = cast(Any, call.module).weight.shape
    num_rows = gradients.numel() // shape.numel()
    order = _order(normed.shape[: normed.ndim - len(shape)], call.num_examples)
    route = _route(shape)
    return {
        "weight": Entrywise(route, gradients, num_rows, normed, order=order),
        "bias": Entrywise(route, gradients, num_rows, 1.0, order=order),
    }


def _order(leading: Size, num_examples: int | None) -> RowOrder | None:
    """The order of rows whose axes are these.

    Rows that come as one axis are taken for examples, each with its positions.
    """
    if num_examples is None or not leading:
        return None
    if leading[0] == num_examples:
        return RowOrder(num_examples, examples_first=True)
    if len(leading) == 2 and leading[1] == num_examples:
        return RowOrder(num_examples, examples_first=False)
    if len(leading) == 1 and leading[0] % num_examples == 0:
        return RowOrder(num_examples, examples_first=True)
    return None

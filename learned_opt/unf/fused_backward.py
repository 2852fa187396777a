"""Pointwise layers as one operator that can be differentiated: its backward pass is one, too.

Legend: M chains, N entries of a tensor, C channels, L layers; a tensor is ``(M, N, C)``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learned_opt.core import native
from learned_opt.unf import fused
from learned_opt.unf.chain_batch import more_chains
from learned_opt.unf.fused import activations, addresses, pointwise_stack, stack_arguments

SOURCE = Path(__file__).with_name("pointwise_stack_backward.cpp")


@torch.library.custom_op("learned_opt::pointwise_stack_backward", mutates_args=())
def pointwise_stack_backward(
    gradients: list[Tensor],
    inputs: list[Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    final_relu: bool,
) -> list[Tensor]:
    """Gradients by the arguments of ``pointwise_stack``; activations are computed again, not kept.

    Args:
        gradients: by its results, ``(M, N, C_L)`` each.
        inputs: as it has got them.
        weights: ``(M, C_l, C_{l+1})``.
        biases: ``(M, C_{l+1})``.
        final_relu: whether the ReLU was applied after the last layer as well.

    Returns:
        list[Tensor]: gradients by the inputs, then those by the weights and by the biases, each
        shaped like the argument and contiguous.
    """
    outputs = _allocate(inputs, weights, biases)
    widths = [weights[0].shape[1], *(weight.shape[2] for weight in weights)]
    kernel = _kernel(inputs[0], widths)
    if kernel is None:
        results = _by_layers(gradients, inputs, weights, biases, final_relu)
        for output, result in zip(outputs, results, strict=True):
            output.copy_(result)
        return outputs

    # these lists keep the copies alive until the kernel is done
    gradients = [gradient.contiguous() for gradient in gradients]
    weights = [weight.contiguous() for weight in weights]
    biases = [bias.contiguous() for bias in biases]
    behind = len(inputs) + len(weights)

    kernel(
        *stack_arguments(inputs, weights, biases),
        addresses(gradients),
        addresses(outputs[: len(inputs)]),
        addresses(outputs[len(inputs) : behind]),
        addresses(outputs[behind:]),
        int(final_relu),
        torch.get_num_threads(),
    )
    return outputs


@pointwise_stack_backward.register_fake
def _(
    gradients: list[Tensor],
    inputs: list[Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    final_relu: bool,
) -> list[Tensor]:
    return _allocate(inputs, weights, biases)


pointwise_stack_backward.register_vmap(more_chains(pointwise_stack_backward, num_lists=4))


def _allocate(
    inputs: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (*inputs, *weights, *biases)]


def _kernel(like: Tensor, widths: Sequence[int]) -> Any:
    if like.device.type != "cpu" or like.dtype not in fused.C_TYPES:
        return None
    library = native.load(SOURCE, fused.defines(like.dtype, widths), (fused.DENSE,))
    return library and library.pointwise_stack_backward


def _by_layers(
    gradients: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    final_relu: bool,
) -> list[Tensor]:
    to_inputs: list[Tensor] = []
    to_weights = [torch.zeros_like(weight) for weight in weights]
    to_biases = [torch.zeros_like(bias) for bias in biases]
    for tensor, gradient in zip(inputs, gradients, strict=True):
        hidden = activations(tensor, weights, biases, final_relu)

        delta = gradient  # (M, N, C_{l+1}), of the output of layer l
        for layer in reversed(range(len(weights))):
            if final_relu or layer < len(weights) - 1:
                delta = delta * (hidden[layer + 1] > 0)
            to_weights[layer] = to_weights[layer] + hidden[layer].mT @ delta
            to_biases[layer] = to_biases[layer] + delta.sum(1)
            delta = delta @ weights[layer].mT
        to_inputs.append(delta)

    return [*to_inputs, *to_weights, *to_biases]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, weights, biases, final_relu = inputs
    ctx.final_relu = final_relu
    ctx.counts = (len(tensors), len(weights))
    ctx.save_for_backward(*tensors, *weights, *biases)


def _backward(ctx: Any, gradients: list[Tensor]) -> Any:
    num_tensors, num_layers = ctx.counts
    behind = num_tensors + num_layers
    saved = list(ctx.saved_tensors)
    arguments = (saved[:num_tensors], saved[num_tensors:behind], saved[behind:], ctx.final_relu)
    on_cpu = gradients[0].device.type == "cpu"
    # elsewhere there is no kernel, and the compiler sees through the layers
    results = (pointwise_stack_backward if on_cpu else _by_layers)(gradients, *arguments)
    return results[:num_tensors], results[num_tensors:behind], results[behind:], None


pointwise_stack.register_autograd(_backward, setup_context=_save)


def apply_pointwise(
    inputs: Mapping[str, Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    final_relu: bool,
) -> dict[str, Tensor]:
    """Dense layers with ReLU between them on the channels of every entry of every tensor.

    Fused on CPUs and CUDA devices; elsewhere, and under autocast, one product per layer, which
    ``torch.compile`` sees through.

    Args:
        inputs: ``name -> Tensor[*shape, C_0]``.
        weights: ``(C_l, C_{l+1})``.
        biases: ``(C_{l+1},)``.
        final_relu: apply the ReLU after the last layer as well.

    Returns:
        dict[str, Tensor]: ``name -> Tensor[*shape, C_L]``.
    """
    flat = [tensor.reshape(1, -1, tensor.shape[-1]) for tensor in inputs.values()]
    chain_weights = [weight.unsqueeze(0) for weight in weights]  # M = 1
    chain_biases = [bias.unsqueeze(0) for bias in biases]

    device = flat[0].device.type
    if device in ("cpu", "cuda") and not torch.is_autocast_enabled(device):
        flat_outputs = pointwise_stack(flat, chain_weights, chain_biases, final_relu)
    else:
        flat_outputs = []
        for tensor in flat:
            hidden = activations(tensor, chain_weights, chain_biases, final_relu)
            flat_outputs.append(hidden[-1])

    outputs = {}
    for (name, tensor), output in zip(inputs.items(), flat_outputs, strict=True):
        outputs[name] = output.reshape(*tensor.shape[:-1], output.shape[-1])
    return outputs

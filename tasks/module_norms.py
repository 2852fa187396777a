"""Batch norm under inner training: statistics of the batch, and of training data to evaluate with.

Running averages would be a state beside the parameters, which neither vmap nor the meta-optimizer
knows. Training does not need them; for evaluation they are computed anew, with the parameters of
that moment ("precise" batch norm).

Source: Wu & Johnson 2021 (arXiv 2105.07576), section 3.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorms:
    """The batch norms of a module that have running statistics.

    From then on a forward in training mode leaves these alone, and one in evaluation mode reads
    them as ever.

    Args:
        module: its layers are prepared, in place.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layers: dict[str, _BatchNorm] = {}
        self.moments: dict[str, list[tuple[Tensor, Tensor]]] | None = None

        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                layer.track_running_stats = False
                layer.register_forward_pre_hook(partial(self._record, name))
                self.layers[name] = layer

    def train(self) -> None:
        """Use the statistics of the batch."""
        for layer in self.layers.values():
            layer.train()

    def start(self) -> None:
        """From here on, note mean and variance of what every layer reads."""
        self.moments = {name: [] for name in self.layers}

    def stop(self) -> dict[str, Tensor]:
        """Their means over all batches since the start: values of the layers' buffers by name."""
        statistics = {}
        for name, moments in (self.moments or {}).items():
            means, variances = zip(*moments, strict=True)
            prefix = f"{name}." if name else ""
            statistics[f"{prefix}running_mean"] = torch.stack(means).mean(0)  # (channels,)
            statistics[f"{prefix}running_var"] = torch.stack(variances).mean(0)
        self.moments = None
        return statistics

    def _record(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.moments is None:
            return
        batch = inputs[0].detach()  # (B, channels, ...)
        others = [dim for dim in range(batch.ndim) if dim != 1]
        variance, mean = torch.var_mean(batch, others)  # unbiased, as running statistics are
        self.moments[name].append((mean, variance))

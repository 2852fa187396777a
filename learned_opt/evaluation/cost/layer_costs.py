"""What a layer costs, against plain linear layers.

One plain layer has as many parameters, another takes as many multiply-adds. A layer says itself
how many parameters one example uses (``active_parameters``) and how many multiply-adds it takes
(``multiply_adds``); where it does not, it uses all its parameters, and each weight once.

Legend: B examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learned_opt.core.live_bytes import LiveBytes
from learned_opt.evaluation.cost.scaling import fit_exponent
from learned_opt.evaluation.cost.timing import Progress, Times, interleave, prefixed

RIVALS = {"P": "parameters", "A": "multiply-adds"}  # what a plain layer has as many of
COUNTS = ("parameters", "active parameters", "multiply-adds")
COSTS = ("eval ms", "train ms", "train KiB")
FIGURES = (*COUNTS, *COSTS)


@dataclass(frozen=True)
class Case:
    """A layer and what makes it grow.

    Args:
        layer: constructor of a layer that reads ``(B, in_features)``.
        grows: name of the argument that grows.
        values: of that argument, at least three, ascending.
        base: growth is measured in ``base ** value``; None for the value itself.

    Raises:
        ValueError: too few values, or not ascending.
    """

    layer: Callable[..., nn.Module]
    grows: str
    values: Sequence[int]
    base: int | None = None

    def __post_init__(self) -> None:
        values = list(self.values)
        if len(values) < 3 or sorted(set(values)) != values:
            raise ValueError(
                f"values of {self.grows} must be at least three and ascend, got {values}."
            )

    def size(self, value: int) -> int:
        """The size in which growth is measured."""
        return value if self.base is None else self.base**value


def count(layer: nn.Module) -> dict[str, int]:
    """The figures of COUNTS for one layer."""
    parameters = sum(p.numel() for p in layer.parameters())
    weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
    active = getattr(layer, "active_parameters", parameters)
    multiply_adds = getattr(layer, "multiply_adds", weights)
    return dict(zip(COUNTS, (parameters, active, multiply_adds), strict=True))


def plain_layers(layer: Any) -> dict[str, nn.Module]:
    """A linear layer for each of RIVALS, as wide as comes nearest to the number."""
    counts = count(layer)
    inputs = layer.in_features
    widths = {"P": counts["parameters"] / (inputs + 1), "A": counts["multiply-adds"] / inputs}
    return {name: nn.Linear(inputs, max(1, round(width))) for name, width in widths.items()}


class Pass:
    """A pass of one layer over one batch, as a call for the timer.

    Args:
        layer: is timed.
        inputs: ``(B, in_features)``.
        training: with gradients.
    """

    def __init__(self, layer: nn.Module, inputs: Tensor, training: bool) -> None:
        self.layer = layer
        self.training = training
        self.inputs = inputs.clone().requires_grad_(training)

    def __call__(self, number: int = 0) -> None:
        """Make one pass over the batch."""
        self.layer.train(self.training)
        with torch.set_grad_enabled(self.training):
            outputs = self.layer(self.inputs)

        if self.training:
            leaves = [self.inputs, *self.layer.parameters()]
            ones = torch.ones_like(outputs)
            torch.autograd.grad(outputs, leaves, ones, allow_unused=True)  # routers may have none

        if self.inputs.is_cuda:
            torch.cuda.synchronize()


def peak_live_bytes(call: Callable[[], object]) -> int:
    """Most bytes of the tensors made during a call that were alive at once."""
    with LiveBytes() as live:
        call()
    return live.peak


def measure(
    cases: Mapping[str, Case],
    batch_size: int,
    repeats: int,
    device: torch.device,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Rows of the table, one for each value of each case.

    Args:
        cases: by name.
        batch_size: B.
        repeats: timed rounds; the layer and its two rivals take turns.
        device: where to measure.
        progress: gets a line on the work that begins.

    Yields:
        dict: the figures, and those of the plain layers as ``FIGURE of P``, ``FIGURE of A``.

    Raises:
        ValueError: a count is not positive, or a layer refuses a value.
    """
    for name, number in {"batch_size": batch_size, "repeats": repeats}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")

    for name, case in cases.items():
        for value in case.values:
            layer: Any = case.layer(**{case.grows: value})
            layers = {"": layer.to(device)}
            for rival, plain in plain_layers(layer).items():
                layers[rival] = plain.to(device)

            source = torch.Generator().manual_seed(0)
            inputs = torch.randn(batch_size, layer.in_features, generator=source).to(device)

            of_value = prefixed(progress, f"{name} {value}")
            row = {"case": name, "grows": case.grows, "value": value, "size": case.size(value)}
            yield {**row, **_figures(layers, inputs, repeats, of_value)}


def _figures(
    layers: Mapping[str, nn.Module], inputs: Tensor, repeats: int, progress: Progress
) -> dict[str, float]:
    """Counts and costs of the layer, the one without a name, and of its rivals."""
    passes = {}
    for name, layer in layers.items():
        for training in (False, True):
            passes[name, training] = Pass(layer, inputs, training)

    times: dict[Any, Times] = {}
    interleave(passes, repeats, times, progress)

    figures: dict[str, float] = {}
    for name, layer in layers.items():
        ms = [1e3 * (times[name, training].typical or 0.0) for training in (False, True)]
        peak = peak_live_bytes(passes[name, True]) / 1024

        costs = dict(zip(COSTS, (*ms, peak), strict=True))
        for figure, value in {**count(layer), **costs}.items():
            figures[figure + _suffix(name)] = value

    return figures


def growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Exponents of the figures, one row for each case and one for each of its rivals."""
    grown = []
    for case in dict.fromkeys(row["case"] for row in rows):
        case_rows = [row for row in rows if row["case"] == case]
        if len(case_rows) < 3:  # interrupted
            continue

        sizes = [row["size"] for row in case_rows]
        first, last = case_rows[0], case_rows[-1]
        span = f"{first['grows']} {first['value']} to {last['value']}"
        for rival in ("", *RIVALS):
            grown_row = {"case": case, "grows": span}
            if rival:
                grown_row["case"] = f"plain, equal {RIVALS[rival]}"

            for figure in FIGURES:
                costs = [row[figure + _suffix(rival)] for row in case_rows]
                grown_row[figure] = str(fit_exponent(sizes, costs))
            grown.append(grown_row)

    return grown


def _suffix(rival: str) -> str:
    return f" of {rival}" if rival else ""

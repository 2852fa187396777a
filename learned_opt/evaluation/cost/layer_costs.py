"""What a layer costs, against plain linear layers of as many parameters and of as many multiply-adds.

A layer says itself how many parameters one example uses (``active_parameters``) and how many multiply-adds it takes
(``multiply_adds``); where it does not, it uses all its parameters, and each weight once.

Legend: B examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learned_opt.core.live_bytes import LiveBytes
from learned_opt.evaluation.cost.scaling import fit_exponent
from learned_opt.evaluation.cost.timing import Times, interleave
from learned_opt.reporting import tables

RIVALS = {"P": "parameters", "A": "multiply-adds"}  # what a plain layer has as many of
COUNTS = ("parameters", "active parameters", "multiply-adds")
COSTS = ("eval ms", "train ms", "train KiB")
FIGURES = (*COUNTS, *COSTS)
HEADINGS = (
    "case",
    "size",
    *COUNTS,
    *(f"{cost}{over}" for cost in COSTS for over in ("", " / P", " / A")),
)
SCREEN = ("case", "size", "parameters", *HEADINGS[-6:])  # what fits a terminal
NOTES = """\
eval: a forward pass without gradients. train: a forward pass, and the gradients of inputs and parameters. Medians of
interleaved rounds; KiB is the most that the tensors made in train held at once. / P and / A: over the same of a plain
linear layer on the same inputs that has as many parameters, or takes as many multiply-adds. Active parameters and
multiply-adds are those of one example. Growth: exponents of power laws of the size, 1 is linear."""


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
        if len(self.values) < 3 or sorted(set(self.values)) != list(self.values):
            raise ValueError(
                f"values of {self.grows} must be at least three and ascend, got {list(self.values)}."
            )

    def size(self, value: int) -> int:
        """What growth is measured in."""
        return value if self.base is None else self.base**value


def count(layer: nn.Module) -> dict[str, int]:
    """The figures of COUNTS."""
    parameters = sum(p.numel() for p in layer.parameters())
    weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
    active, multiply_adds = (
        getattr(layer, "active_parameters", parameters),
        getattr(layer, "multiply_adds", weights),
    )
    return dict(zip(COUNTS, (parameters, active, multiply_adds), strict=True))


def plain_layers(layer: Any) -> dict[str, nn.Module]:
    """A linear layer for each of RIVALS, as wide as comes nearest to the number."""
    own, inputs = count(layer), layer.in_features
    widths = {"P": own["parameters"] / (inputs + 1), "A": own["multiply-adds"] / inputs}
    return {name: nn.Linear(inputs, max(1, round(width))) for name, width in widths.items()}


class Pass:
    """A pass of one layer over one batch, as a call for the timer.

    Args:
        layer: what is timed.
        inputs: ``(B, in_features)``.
        training: with gradients.
    """

    def __init__(self, layer: nn.Module, inputs: Tensor, training: bool) -> None:
        self.layer, self.training = layer, training
        self.inputs = inputs.clone().requires_grad_(training)

    def __call__(self, number: int = 0) -> None:
        """One pass."""
        self.layer.train(self.training)
        with torch.set_grad_enabled(self.training):
            outputs = self.layer(self.inputs)
        if self.training:
            wanted = [self.inputs, *self.layer.parameters()]
            torch.autograd.grad(
                outputs, wanted, torch.ones_like(outputs), allow_unused=True
            )  # routers may have none
        if self.inputs.is_cuda:
            torch.cuda.synchronize()


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of the tensors made during a call that were alive at once."""
    with LiveBytes() as live:
        call()
    return live.peak


def measure(
    cases: Mapping[str, Case],
    batch_size: int,
    repeats: int,
    device: torch.device,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows of the table, one for each value of each case.

    Args:
        cases: by name.
        batch_size: B.
        repeats: timed rounds; the layer and its two rivals take turns.
        device: where to measure.
        say: called with a line on what is being done.

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
            layers = {
                name: made.to(device) for name, made in {"": layer, **plain_layers(layer)}.items()
            }
            source = torch.Generator().manual_seed(0)
            inputs = torch.randn(batch_size, layer.in_features, generator=source).to(device)
            figures = _figures(
                layers, inputs, repeats, lambda text, at=f"{name} {value}": say(f"{at}, {text}")
            )
            yield {
                "case": name,
                "grows": case.grows,
                "value": value,
                "size": case.size(value),
                **figures,
            }


def _figures(
    layers: Mapping[str, nn.Module], inputs: Tensor, repeats: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Counts and costs of the layer, the one without a name, and of its rivals."""
    passes = {
        (name, mode): Pass(layer, inputs, mode)
        for name, layer in layers.items()
        for mode in (False, True)
    }
    times: dict[Any, Times] = {}
    interleave(passes, repeats, times, say)
    figures: dict[str, float] = {}
    for name, layer in layers.items():
        ms = [1e3 * (times[name, mode].typical or 0.0) for mode in (False, True)]
        peak = peak_bytes(passes[name, True]) / 1024
        own = {**count(layer), **dict(zip(COSTS, (*ms, peak), strict=True))}
        figures |= {
            f"{figure} of {name}" if name else figure: value for figure, value in own.items()
        }
    return figures


def ratios(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as people read it, with the headings as keys."""
    shown = {"case": row["case"], "size": f"{row['grows']} {row['value']}"}
    shown |= {name: f"{row[name]:,}" for name in COUNTS}
    for cost in COSTS:
        shown[cost] = f"{row[cost]:,.0f}" if row[cost] >= 100 else f"{row[cost]:.3g}"
        shown |= {
            f"{cost} / {rival}": f"{row[cost] / row[f'{cost} of {rival}']:.2f}" for rival in RIVALS
        }
    return shown


def growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Exponents of the figures, one row for each case and one for each of its rivals."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        if len(own) < 3:  # interrupted
            continue
        sizes = [row["size"] for row in own]
        span = f"{own[0]['grows']} {own[0]['value']} to {own[-1]['value']}"
        for rival in ("", *RIVALS):
            key = f" of {rival}" if rival else ""
            label = f"plain, equal {RIVALS[rival]}" if rival else case
            exponents = {
                figure: str(fit_exponent(sizes, [row[figure + key] for row in own]))
                for figure in FIGURES
            }
            found.append({"case": label, "grows": span, **exponents})
    return found


def write(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``networks.json`` and ``networks.md``."""
    exponents, shown = growth(rows), [ratios(row) for row in rows]
    tables.write_json(folder / "networks.json", {**facts, "rows": rows, "growth": exponents})
    page = tables.markdown_table(
        HEADINGS, ([str(row[heading]) for heading in HEADINGS] for row in shown)
    )
    headings = ("case", "grows", *FIGURES)
    grown = tables.markdown_table(
        headings, ([row[heading] for heading in headings] for row in exponents)
    )
    text = "\n".join(f"{name}: {value}  " for name, value in facts.items())
    (folder / "networks.md").write_text(
        f"# Cost of layers\n\n{page}\n\n## Growth\n\n{grown}\n\n{NOTES}\n\n{text}\n"
    )

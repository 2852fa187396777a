"""The table, the page and the picture of an estimator lab."""

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from learned_opt.core.files import write_json, write_text
from learned_opt.core.tree import Tree
from learned_opt.evaluation.block_signals import BlockSignal, block_signals
from learned_opt.evaluation.estimator_lab import Estimates, by_tensor, summarise
from learned_opt.reporting import plots
from learned_opt.reporting.tables import Table, table_of

# columns of the first two tables, which a terminal of 80 columns holds
ESTIMATE = ("estimator", "bias", "stderr", "cosine", "SNR", "var")
COST = ("estimator", "var x grads", "grads", "ms", "left out")
NOTES = (
    "Reference: mean of {replicates} estimates of {reference}, {steps:,} inner gradients in all; "
    "its standard error is {error:.1%} of its norm. Bias: relative excess of the mean estimate "
    "along the reference, with its standard error over {replicates} independent estimates. "
    "Perturbed estimators aim at a smoothed meta-loss: part of their bias is that of smoothing. "
    "SNR: squared norm of the mean over the total variance of one estimate.",
    "Grads: what one estimate costs, in evaluations of inner gradients; a backward pass through "
    "an inner step counts 2, and 1 more where it runs the step again. Var x grads compares at "
    "equal compute. Left out: tasks that were not finite, all replicates together.",
    "By block: scalars are the tensors of theta without axes, equivariant the coefficients that "
    "mix entries, pointwise all others. Signal to noise and variance are those of the mean of as "
    "many estimates as {budget:,} inner gradients pay for, and s its seconds; behind ± one "
    "standard error over replicates. A biased estimator can have much signal and point "
    "elsewhere: the cosine, of the mean over all replicates with the reference, tells.",
)


def write_report(
    folder: Path, estimates: Mapping[str, Estimates], reference: str, theta: Tree, budget: int
) -> tuple[list[Table], str]:
    """Write ``lab.json``, ``lab.md`` and ``lab.png``.

    Args:
        folder: existing folder.
        estimates: by name; ``reference`` among them is what the others are measured against.
        reference: what made the reference.
        theta: at which they were made.
        budget: evaluations of inner gradients at which blocks are compared.

    Returns:
        tuple: tables for the terminal, and the notes to them.
    """
    aim = estimates["reference"]
    rows = [summarise(name, one, aim.flat.mean(0)) for name, one in estimates.items()]
    means = {name: values.mean(0) for name, values in aim.gradients.items()}
    tensors = {name: by_tensor(one, means) for name, one in estimates.items()}
    blocks = {name: block_signals(one, means, theta, budget) for name, one in estimates.items()}
    written = {"estimators": rows, "tensors": tensors, "budget": budget, "blocks": _plain(blocks)}
    write_json(folder / "lab.json", _finite(written))

    cells = [_cells(row) for row in rows]
    tables = [
        table_of(ESTIMATE, cells)._replace(title="one estimate"),
        table_of(COST, cells)._replace(title="its cost"),
    ]
    tables += _block_tables(blocks, estimates, budget)
    notes = _notes(aim, reference, budget)
    pages = [f"{table.title}\n\n{table.markdown}".lstrip() for table in tables]
    text = "\n\n".join([*pages, notes, "![bias and variance](lab.png)"])
    write_text(folder / "lab.md", f"{text}\n")
    plots.save(estimators_figure(rows), folder / "lab.png")

    return tables, notes


def _plain(blocks: Mapping[str, Mapping[str, BlockSignal]]) -> dict[str, dict[str, dict]]:
    """Figures by estimator and block, as JSON has them."""
    plain: dict[str, dict[str, dict]] = {}
    for name, signals in blocks.items():
        plain[name] = {block: signal._asdict() for block, signal in signals.items()}
    return plain


def _finite(value: Any) -> Any:
    """The same with null in place of numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _block_tables(
    blocks: Mapping[str, Mapping[str, BlockSignal]],
    estimates: Mapping[str, Estimates],
    budget: int,
) -> list[Table]:
    """Signal to noise, variance and cosine: a row for each estimator, a column for each block."""
    names_of_blocks = list(next(iter(blocks.values())))
    kinds = {
        f"signal to noise of {budget:,} inner gradients": _snr_cell,
        f"variance of {budget:,} inner gradients": lambda signal: _digits(signal.variance),
        "cosine with the reference": lambda signal: f"{signal.cosine:.2f}",
    }

    tables = []
    for title, cell in kinds.items():
        rows = []
        for name, signals in blocks.items():
            cells = [cell(signals[block]) for block in names_of_blocks]
            seconds = estimates[name].seconds * budget / estimates[name].num_gradients
            rows.append([name, *cells, _digits(seconds, 2)])
        tables.append(Table(["estimator", *names_of_blocks, "s"], rows, title))

    # the budget has no part in the last one
    cosines = tables.pop()
    rows = [row[:-1] for row in cosines.rows]
    return [*tables, Table(cosines.headings[:-1], rows, cosines.title)]


def _snr_cell(signal: BlockSignal) -> str:
    text = _digits(signal.snr, 2)
    return text if isnan(signal.snr_error) else f"{text}±{_digits(signal.snr_error, 1)}"


def _digits(value: float, digits: int = 3) -> str:
    """A number to some digits, as short as it can be written.

    >>> _digits(5921.0, 2), _digits(0.000321), _digits(0.25)
    ('5900', '3.21e-4', '0.25')
    """
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 0.01 <= abs(rounded) < 100_000:
        return f"{rounded:.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _notes(aim: Estimates, reference: str, budget: int) -> str:
    flat = aim.flat  # (R, P)
    squared_error = flat.var(0).sum() / len(flat)  # of the mean, all of theta together
    return "\n\n".join(NOTES).format(
        replicates=len(flat),
        reference=reference,
        steps=len(flat) * aim.num_gradients,
        budget=budget,
        error=float(squared_error.sqrt() / flat.mean(0).norm()),
    )


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits of every number that is not a count."""
    texts = {}
    for heading, value in row.items():
        texts[heading] = _digits(value) if isinstance(value, float) else value
    return texts


def estimators_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Bias with its 95% interval over variance at equal compute, a point for each estimator.

    Args:
        rows: of ``estimator_lab.summarise``.
    """
    figure, axes = plots.panel(7, 4.2)
    for i, row in enumerate(rows):
        marker = plots.MARKERS[i % len(plots.MARKERS)]
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        look: dict[str, Any] = {"marker": marker, "color": colour, "label": row["estimator"]}
        axes.errorbar(row["var x grads"], row["bias"], 1.96 * row["stderr"], capsize=3, **look)

    axes.axhline(0, color="0.6", linewidth=1)
    ylabel = "relative bias along the reference"
    axes.set(xscale="log", xlabel="variance of one estimate x its inner gradients", ylabel=ylabel)
    plots.finish(axes)
    return figure

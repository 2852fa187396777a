"""The table and the page of what steps of deployed optimizers cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learned_opt.core.files import write_json, write_text
from learned_opt.reporting.tables import table_of

HEADINGS = ("network", "optimizer", "theta", "ms", "/ AdamW", "/ loop", "state B", "temp B")
NOTES = """\
ms: processor time of a step on one thread, median of interleaved rounds, random gradients.
loop: the same learned optimizer as plain PyTorch, tensor by tensor, where it is pointwise;
default: LearnedOptimizer as it is, fused: with fused=True. Bytes of each parameter: state that
is kept, and the most that other tensors made in a step held at once (no buffers in kernels)."""


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of ``deployed.measure`` as text, with the headings as keys.

    >>> row = {"network": "mlp", "optimizer": "AdamW", "theta": 0, "ms": 1234.5, "/ AdamW": 1.0}
    >>> cells({**row, "/ loop": None, "state B": 8.0, "temp B": 0.1})["ms"]
    '1,234'
    """
    ms_format = ".3g" if row["ms"] < 1000 else ",.0f"
    return {
        "network": row["network"],
        "optimizer": row["optimizer"],
        "theta": f"{row['theta']:,}" if row["theta"] else "-",
        "ms": format(row["ms"], ms_format),
        "/ AdamW": f"{row['/ AdamW']:.2f}",
        "/ loop": f"{row['/ loop']:.3f}" if row["/ loop"] else "-",
        "state B": f"{row['state B']:.1f}",
        "temp B": f"{row['temp B']:.1f}",
    }


def write(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``deployed.json`` and ``deployed.md``.

    Args:
        folder: run folder.
        rows: of ``deployed.measure``.
        facts: what a reader needs to repeat it.
    """
    write_json(folder / "deployed.json", {**facts, "rows": rows})

    page = table_of(HEADINGS, map(cells, rows)).markdown
    lines = "\n".join(f"{name}: {value}  " for name, value in facts.items())
    text = f"# Cost of deployed optimizers\n\n{page}\n\n{NOTES}\n\n{lines}\n"
    write_text(folder / "deployed.md", text)

"""Memory and wires of a run over time, as a picture or an animation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import animation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn.functional import adaptive_max_pool1d

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.engines import Step

NUM_FRAMES = 100  # of an animation, at most
NUM_COLUMNS = 600  # of the picture of wires


def draw(path: Path, network: SubleqNetwork, memory: list[int], steps: Sequence[Step]) -> None:
    """Draw a run.

    Args:
        path: ``.png``: memory over time, and the wires of the first instruction; ``.gif``: frames of both.
        network: whose wires are shown.
        memory: words before the first instruction.
        steps: what was executed.
    """
    if path.suffix == ".png":
        figure = Figure(figsize=(11, 5.5), dpi=110, layout="constrained")
        _picture(figure, network, memory, steps)
        figure.savefig(path)
    else:
        figure = Figure(figsize=(11, 5.5), dpi=80)
        figure.subplots_adjust(left=0.06, right=0.98, bottom=0.09, top=0.94, hspace=0.35)
        _animation(figure, network, memory, steps).save(path, writer=animation.PillowWriter(fps=8))


def _picture(
    figure: Figure, network: SubleqNetwork, memory: list[int], steps: Sequence[Step]
) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    history = np.array([words for words, _ in _history(network, memory, steps)])
    half = 1 << (network.machine.word_bits - 1)
    change = (history - history[0] + half) % (2 * half) - half  # signed, modulo 2^N
    shade = np.sign(change) * np.log2(1 + np.abs(change))
    used = int(np.flatnonzero(history.any(0)).max(initial=3)) + 1
    bound = max(np.abs(shade).max(), 1)
    image = left.imshow(
        shade.T[:used], aspect="auto", interpolation="nearest", cmap="RdBu", vmin=-bound, vmax=bound
    )
    left.plot([step.pc for step in steps], color="black", linewidth=0.4, alpha=0.6, label="pc")
    left.set(xlabel="instruction", ylabel="address", title="change of every word since the start")
    left.legend(loc="upper right")
    figure.colorbar(image, ax=left, label="sign x log2(1 + size) of the change")
    _draw_wires(right, network, memory, steps[0].pc)


def _animation(
    figure: Figure, network: SubleqNetwork, memory: list[int], steps: Sequence[Step]
) -> animation.FuncAnimation:
    upper, lower = figure.subplots(2, 1)
    every = -(-len(steps) // NUM_FRAMES)
    frames = [
        (i, words, step)
        for i, (words, step) in enumerate(_history(network, memory, steps))
        if i % every == 0
    ]

    def show(frame: tuple[int, list[int], Step]) -> list:
        i, words, step = frame
        upper.clear()
        lower.clear()
        bits = (np.array(words)[None] >> np.arange(network.machine.word_bits)[:, None]) & 1
        upper.imshow(bits, aspect="auto", interpolation="nearest", cmap="Greys", vmax=1.5)
        for name, address, colour in (
            ("pc", step.pc, "#b07d12"),
            ("a", step.a, "#0b3c8c"),
            ("b", step.b, "#d1495b"),
        ):
            upper.axvline(address, color=colour, linewidth=1.5, label=f"{name} {address}")
        upper.set(
            xlabel="address",
            ylabel="bit",
            title=f"memory before instruction {i + 1}: [b] -= {step.value} gives {step.result}",
        )
        upper.legend(loc="upper right", ncols=3)
        _draw_wires(lower, network, words, step.pc)
        return []

    return animation.FuncAnimation(figure, show, frames=frames)


def _draw_wires(axes: Axes, network: SubleqNetwork, memory: list[int], pc: int) -> None:
    """One row for each layer: its wires but those of the memory, which come first, stretched to one width."""
    with torch.no_grad():
        layers = network.wires(network.encode(torch.tensor(memory), torch.tensor(pc)))
    first = network.machine.num_words * network.machine.word_bits
    image = torch.stack(
        [adaptive_max_pool1d(wires[None, first:], NUM_COLUMNS)[0] for wires in layers]
    ).numpy()
    extent = (0, 100, len(layers) + 0.5, 0.5)
    axes.imshow(
        image, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=2, extent=extent
    )
    axes.set(
        xlabel="position in the layer, %", ylabel="layer", title="wires beside the memory: 0, 1, 2"
    )


def _history(
    network: SubleqNetwork, memory: list[int], steps: Sequence[Step]
) -> Iterator[tuple[list[int], Step]]:
    """The memory before every instruction; each changes one word."""
    memory = memory.copy()
    for step in steps:
        yield memory.copy(), step
        memory[step.b] = network.machine.word(step.result)

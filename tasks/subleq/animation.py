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

SIZE = (11, 5.5)  # inches
NUM_FRAMES = 100  # of an animation, at most
FRAMES_PER_SECOND = 8
NUM_COLUMNS = 600  # of the picture of wires
COLOURS = {"pc": "#b07d12", "a": "#0b3c8c", "b": "#d1495b"}

Frame = tuple[int, list[int], Step]  # number of the instruction, memory before it, the instruction


def draw(path: Path, network: SubleqNetwork, memory: list[int], steps: Sequence[Step]) -> None:
    """Draw a run.

    Args:
        path: ``.png``: memory over time, and the wires of the first instruction; ``.gif``: frames
            of both.
        network: whose wires are shown.
        memory: words before the first instruction.
        steps: the executed instructions.
    """
    if path.suffix == ".png":
        figure = Figure(figsize=SIZE, dpi=110, layout="constrained")
        _draw_picture(figure, network, memory, steps)
        figure.savefig(path)
        return

    figure = Figure(figsize=SIZE, dpi=80)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.09, top=0.94, hspace=0.35)
    moving = _animation(figure, network, memory, steps)
    moving.save(path, writer=animation.PillowWriter(fps=FRAMES_PER_SECOND))


def _draw_picture(
    figure: Figure, network: SubleqNetwork, memory: list[int], steps: Sequence[Step]
) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    history = np.array([words for words, _ in _history(network, memory, steps)])  # (T, M)
    half = 1 << (network.machine.word_bits - 1)
    change = (history - history[0] + half) % (2 * half) - half  # signed, modulo 2^N

    # log scale: a counter and a large number are seen beside each other
    shade = np.sign(change) * np.log2(1 + np.abs(change))
    bound = max(np.abs(shade).max(), 1)
    num_used = int(np.flatnonzero(history.any(0)).max(initial=3)) + 1

    image = left.imshow(
        shade.T[:num_used],
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu",
        vmin=-bound,
        vmax=bound,
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
    frames: list[Frame] = []
    for i, (words, step) in enumerate(_history(network, memory, steps)):
        if i % every == 0:
            frames.append((i, words, step))

    def show(frame: Frame) -> list:
        _, words, step = frame
        upper.clear()
        lower.clear()
        _draw_memory(upper, network.machine.word_bits, frame)
        _draw_wires(lower, network, words, step.pc)
        return []

    return animation.FuncAnimation(figure, show, frames=frames)


def _draw_memory(axes: Axes, word_bits: int, frame: Frame) -> None:
    """Bits of every word, with the addresses of the instruction marked."""
    i, words, step = frame
    bits = (np.array(words)[None] >> np.arange(word_bits)[:, None]) & 1  # (N, M)
    axes.imshow(bits, aspect="auto", interpolation="nearest", cmap="Greys", vmax=1.5)
    for name, colour in COLOURS.items():
        address = getattr(step, name)
        axes.axvline(address, color=colour, linewidth=1.5, label=f"{name} {address}")

    title = f"memory before instruction {i + 1}: [b] -= {step.value} gives {step.result}"
    axes.set(xlabel="address", ylabel="bit", title=title)
    axes.legend(loc="upper right", ncols=3)


@torch.no_grad()
def _draw_wires(axes: Axes, network: SubleqNetwork, memory: list[int], pc: int) -> None:
    """One row for each layer: its wires but those of the memory, stretched to one width."""
    first = network.machine.num_words * network.machine.word_bits  # the memory comes first
    layers = network.wires(network.encode(torch.tensor(memory), torch.tensor(pc)))
    rows = [adaptive_max_pool1d(wires[None, first:], NUM_COLUMNS)[0] for wires in layers]

    axes.imshow(
        torch.stack(rows).numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=2,
        extent=(0, 100, len(layers) + 0.5, 0.5),
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

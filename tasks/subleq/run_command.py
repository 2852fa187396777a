"""``python -m tasks.subleq run``: execute a program and print the words that it writes out."""

import argparse
import sys
import time
from pathlib import Path

import torch

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.engines import Step, interpreter, network_engine
from tasks.subleq.machine import Machine
from tasks.subleq.running import execute, load

HALTED = 0
STEP_LIMIT = 3
INTERRUPTED = 130
LAST_CHARACTER = 0x110000  # characters are taken modulo this


class StepPrinter:
    """Prints what a run does, step by step.

    Args:
        machine: sizes.
        trace: print every instruction.
        text: print words that are written out as characters.
    """

    def __init__(self, machine: Machine, trace: bool, text: bool) -> None:
        self.output_address = machine.num_words - 1
        self.trace = trace
        self.text = text

    def __call__(self, step: Step) -> None:
        """Print what one executed instruction did."""
        if self.trace:
            print(
                f"pc {step.pc:>5}  [{step.b}] -= [{step.a}] = {step.value}  ->  {step.result}, "
                f"to {step.next_pc}"
            )

        if step.b != self.output_address or step.halts:
            return
        if self.text:
            print(chr(step.value % LAST_CHARACTER), end="")
        else:
            print(step.value)


def run(options: argparse.Namespace) -> int:
    """Execute a program.

    Args:
        options: of the command line, see ``__main__``.

    Returns:
        int: the exit code: 0 halted, 3 step limit, 130 interrupted; the state of the last two is
        saved.

    Raises:
        ValueError: bad input.
    """
    _check(options)
    torch.set_num_threads(1)  # the layers are too small to share: waiting would cost more

    state = load(options.file, options.words, options.bits, dict(options.set))
    machine = state.machine
    network = SubleqNetwork(machine.num_words, machine.word_bits, compact=options.compact)
    on_network = options.engine == "network"
    engine = network_engine(network) if on_network else interpreter(machine)

    first_memory = state.memory
    first_steps = state.steps
    printer = StepPrinter(machine, options.trace, options.text)
    drawn: list[Step] = []

    def on_step(step: Step) -> None:
        printer(step)
        if options.animate:
            drawn.append(step)

    start = time.perf_counter()
    try:
        code = HALTED if execute(state, engine, options.max_steps, on_step) else STEP_LIMIT
    except KeyboardInterrupt:
        code = INTERRUPTED
    seconds = time.perf_counter() - start

    if options.text:
        print()
    num_layers = len(network.layers) if on_network else 0
    _print_summary(code, state.steps - first_steps, num_layers, seconds, options.max_steps)
    if code != HALTED:
        path = options.save or Path(f"{Path(options.file).name.split('.')[0]}.state.json")
        state.save(path)
        command = f"python -m tasks.subleq run {path} --max-steps NUMBER"
        print(f"state saved; to go on: {command}", file=sys.stderr)
    if drawn:
        _draw(options.animate, network, first_memory, drawn)
    return code


def _check(options: argparse.Namespace) -> None:
    if options.max_steps < 1:
        raise ValueError(f"--max-steps must be at least 1, got {options.max_steps}.")
    if options.animate and options.animate.suffix not in (".gif", ".png"):
        raise ValueError(f"--animate writes .gif or .png, got {options.animate}.")


def _print_summary(
    code: int, num_steps: int, num_layers: int, seconds: float, max_steps: int
) -> None:
    endings = {
        HALTED: "halted",
        STEP_LIMIT: f"still running at the limit of {max_steps:,} instructions (--max-steps)",
        INTERRUPTED: "interrupted",
    }

    layers = f"{num_steps * num_layers:,} layer calls, " if num_layers else ""
    rate = f"{num_steps / seconds:,.0f} instructions/s"
    print(f"{endings[code]}: {num_steps:,} instructions, {layers}{rate}", file=sys.stderr)


def _draw(path: Path, network: SubleqNetwork, memory: list[int], steps: list[Step]) -> None:
    from tasks.subleq.animation import draw  # matplotlib takes a second to import

    try:
        draw(path, network, memory, steps)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}.") from error
    print(f"drawn: {path}", file=sys.stderr)

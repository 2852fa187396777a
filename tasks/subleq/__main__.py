"""``python -m tasks.subleq run FILE``: execute a program on the looped ReLU network; ``bench`` measures its speed."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns:
        int: 0 halted, 2 bad input, 3 step limit (the state is saved), 130 interrupted (the state is saved).
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ValueError as error:
        print(f"subleq: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Execute a program and print what it writes out."""
    import torch

    from tasks.networks.looped_relu import SubleqNetwork
    from tasks.subleq.engines import Step, interpreter, network_engine
    from tasks.subleq.running import execute, load

    if options.max_steps < 1:
        raise ValueError(f"--max-steps must be at least 1, got {options.max_steps}.")
    if options.animate and options.animate.suffix not in (".gif", ".png"):
        raise ValueError(f"--animate writes .gif or .png, got {options.animate}.")
    torch.set_num_threads(
        1
    )  # the layers of one machine are too small to share: waiting would cost more
    state = load(options.file, options.words, options.bits, dict(options.set))
    machine, start = state.machine, (state.memory, state.steps)
    network = SubleqNetwork(machine.num_words, machine.word_bits, compact=options.compact)
    engine = network_engine(network) if options.engine == "network" else interpreter(machine)
    seen: list[Step] = []

    def see(step: Step) -> None:
        if options.trace:
            print(
                f"pc {step.pc:>5}  [{step.b}] -= [{step.a}] = {step.value}  ->  {step.result}, to {step.next_pc}"
            )
        if step.b == machine.num_words - 1 and not step.halts:
            print(
                chr(step.value % 0x110000) if options.text else step.value,
                end="" if options.text else "\n",
            )
        if options.animate:
            seen.append(step)

    began, code, ending = time.perf_counter(), 0, "halted"
    try:
        if not execute(state, engine, options.max_steps, see):
            code, ending = (
                3,
                f"still running at the limit of {options.max_steps:,} instructions (--max-steps)",
            )
    except KeyboardInterrupt:
        code, ending = 130, "interrupted"
    seconds, done = time.perf_counter() - began, state.steps - start[1]
    layers = f"{done * len(network.layers):,} layer calls, " if options.engine == "network" else ""
    if options.text:
        print()
    print(
        f"{ending}: {done:,} instructions, {layers}{done / seconds:,.0f} instructions/s",
        file=sys.stderr,
    )
    if code:
        path = options.save or Path(f"{Path(options.file).name.split('.')[0]}.state.json")
        state.save(path)
        print(
            f"state saved; to go on: python -m tasks.subleq run {path} --max-steps NUMBER",
            file=sys.stderr,
        )
    if options.animate:
        from tasks.subleq.animation import draw

        draw(options.animate, network, start[0], seen)
        print(f"drawn: {options.animate}", file=sys.stderr)
    return code


def bench(options: argparse.Namespace) -> int:
    """Print cost against size."""
    import torch

    from tasks.subleq.bench import measure

    torch.set_num_threads(1)
    measure(options.bits, options.largest)
    return 0


def _assignment(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"needs LABEL=NUMBER, got {text!r}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tasks.subleq", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="run|bench")
    one = verbs.add_parser("run", help="execute a program")
    one.set_defaults(command=run)
    one.add_argument(
        "file", help="a source file, a library program such as gcd, or a saved state (.json)"
    )
    one.add_argument("--words", type=int, default=256, help="memory, a power of two (default 256)")
    one.add_argument("--bits", type=int, default=16, help="of a word (default 16)")
    one.add_argument("--engine", choices=("network", "interpreter"), default="network")
    one.add_argument("--compact", action="store_true", help="9 layers in place of 23")
    one.add_argument("--set", type=_assignment, action="append", default=[], metavar="LABEL=VALUE")
    one.add_argument(
        "--max-steps", type=int, default=1_000_000, help="instructions (default 1,000,000)"
    )
    one.add_argument("--trace", action="store_true", help="print every instruction")
    one.add_argument("--text", action="store_true", help="print what is written out as characters")
    one.add_argument(
        "--save", type=Path, help="where the state goes that did not halt (default NAME.state.json)"
    )
    one.add_argument(
        "--animate", type=Path, metavar="FILE", help="draw memory and wires over time, .gif or .png"
    )
    other = verbs.add_parser(
        "bench", help="instructions a second against state bits, structured and dense"
    )
    other.set_defaults(command=bench)
    other.add_argument("--bits", type=int, default=16, help="of a word (default 16)")
    other.add_argument(
        "--largest", type=int, default=16384, help="words of the largest machine (default 16,384)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

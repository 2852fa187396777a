"""``python -m tasks.subleq run FILE`` executes a program on the looped ReLU network.

``python -m tasks.subleq bench`` measures its speed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

BAD_INPUT = 2
INTERRUPTED = 130
CLOSED_OUTPUT = 141  # what a shell reports of a program that a closed pipe ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
        arguments: words of the command line; None for those of the process.

    Returns:
        int: 0 halted, 2 bad input, 3 step limit (the state is saved), 130 interrupted (the state is
        saved, where there is one), 141 nobody reads the output any more.
    """
    try:
        options = _parser().parse_args(arguments)
        return options.command(options)
    except ValueError as error:
        print(f"subleq: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("subleq: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # what is still in the buffer must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_OUTPUT


def _run(options: argparse.Namespace) -> int:
    from tasks.subleq.run_command import run  # torch takes seconds to import; --help needs none

    return run(options)


def _bench(options: argparse.Namespace) -> int:
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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, where argparse prints the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "python -m tasks.subleq",
        description="Programs for a computer with one instruction, SUBLEQ, on a ReLU network.",
    )
    verbs = parser.add_subparsers(required=True, metavar="run|bench")

    run = verbs.add_parser("run", help="execute a program")
    run.set_defaults(command=_run)
    run.add_argument(
        "file", help="a source file, a library program such as gcd, or a saved state (.json)"
    )
    run.add_argument("--words", type=int, default=256, help="memory, a power of two (default 256)")
    run.add_argument("--bits", type=int, default=16, help="of a word (default 16)")
    run.add_argument("--engine", choices=("network", "interpreter"), default="network")
    run.add_argument("--compact", action="store_true", help="9 layers in place of 23")
    run.add_argument("--set", type=_assignment, action="append", default=[], metavar="LABEL=VALUE")
    run.add_argument(
        "--max-steps", type=int, default=1_000_000, help="instructions (default 1,000,000)"
    )
    run.add_argument("--trace", action="store_true", help="print every instruction")
    run.add_argument("--text", action="store_true", help="print what is written out as characters")
    run.add_argument(
        "--save", type=Path, help="where the state goes that did not halt (default NAME.state.json)"
    )
    run.add_argument(
        "--animate", type=Path, metavar="FILE", help="draw memory and wires over time, .gif or .png"
    )

    bench = verbs.add_parser(
        "bench", help="instructions a second against state bits, structured and dense"
    )
    bench.set_defaults(command=_bench)
    bench.add_argument("--bits", type=int, default=16, help="of a word (default 16)")
    bench.add_argument(
        "--largest", type=int, default=16384, help="words of the largest machine (default 16,384)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

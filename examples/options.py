"""What the examples of deployed optimizers share: their command line."""

import argparse
from collections.abc import Sequence

WEIGHTS = "unf-transfer"


def parse(words: Sequence[str] | None, description: str, steps: int) -> argparse.Namespace:
    """Read ``weights`` and ``steps`` from a command line.

    Args:
        words: the command line; None for that of the program.
        description: what ``--help`` says first.
        steps: default of ``--steps``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "weights",
        nargs="?",
        default=WEIGHTS,
        help="packaged name, run folder, or owner/name of the hub",
    )

    parser.add_argument("--steps", type=int, default=steps, help="training steps")
    return parser.parse_args(words)

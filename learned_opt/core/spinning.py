"""How long threads of OpenMP wait busily for each other.

Torch shares an operation among threads, which meet at a barrier. Those of GNU's OpenMP, which
torch's packages for Linux bring, spin there for milliseconds before they sleep. On a machine of
their own that is fast; beside another program they hold the cores that those need which they wait
for, and a run loses most of its speed. With a bound they give their core away after some tenths of
a millisecond.

Imports nothing heavy: OpenMP reads the variable once, when torch is loaded.
"""

import os
import sys

# turns of a loop, some 0.4 ms on a Xeon; measured in docs/speed.md
SPIN_COUNT = 10_000
CHOICES_OF_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def bound_spinning() -> None:
    """Bound it for this process and those that it starts, unless a variable decides already.

    Does nothing where torch is loaded: it would not be heard any more.
    """
    is_chosen = any(name in os.environ for name in CHOICES_OF_USER)
    if not is_chosen and "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)

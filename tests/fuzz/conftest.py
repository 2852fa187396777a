"""The seed of all draws, and one process from which programs are forked."""

import os
from collections.abc import Iterator

import pytest

from tests.helpers.forked_programs import ForkServer

SEED = "LEARNED_OPT_FUZZ_SEED"  # name of the environment variable


@pytest.fixture(scope="session")
def seed() -> int:
    """Of everything that is drawn here."""
    return int(os.environ.get(SEED, "20"))


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Where programs are started."""
    with ForkServer() as started:
        yield started

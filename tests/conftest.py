"""What every test needs: threads that share the cores with other workers, logging as it was."""

import logging
import os
from collections.abc import Iterator

import pytest

import learned_opt  # noqa: F401 - before any test imports torch, whose threads would spin

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one thread for each worker and for the processes that it starts
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Hydra adds handlers for good, which would write into folders of tests that are over."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in logging.getLogger().handlers[:]:
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            logging.getLogger().removeHandler(handler)
            handler.close()

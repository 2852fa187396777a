"""One process from which programs are forked, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.helpers.forked_programs import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Where programs are started."""
    with ForkServer() as started:
        yield started

"""What every test needs: threads that share the cores, logging as it was, runs that cost little."""

import gc
import logging
import os
from collections.abc import Callable, Iterator
from typing import IO

import pytest

import learned_opt  # noqa: F401 - before any test imports torch, whose threads would spin

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one thread for each worker and for the processes that it starts
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Hydra adds handlers for good, which would write into folders of tests that are over."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in logging.getLogger().handlers[:]:
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session", autouse=True)
def cheap_runs() -> Iterator[Callable[..., None]]:
    """Pictures and measured times take half of a tiny run, and few tests are about them.

    Figures are still made, but not drawn: what draws them asks for ``real_pictures``.

    Yields:
        what draws and saves a figure.
    """
    # the process that hands out tests needs none of these
    from matplotlib.figure import Figure

    from learned_opt.evaluation import step_times

    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save_nothing)
        # inner steps, repeats
        patch.setattr(step_times.time_steps.__wrapped__, "__defaults__", (1, 1))
        yield save


def _save_nothing(_: object, file: IO[bytes], **__: object) -> None:
    from PIL import Image

    Image.new("L", (1, 1)).save(file, "png")


@pytest.fixture
def real_pictures(cheap_runs, monkeypatch) -> None:
    """Figures are drawn, as users have them."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", cheap_runs)

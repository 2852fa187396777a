"""Whom an evaluation tells how far it is."""

from abc import ABC, abstractmethod

from typing_extensions import override


class Progress(ABC):
    """Counts inner training runs: those of tuning and those on held-out seeds."""

    @abstractmethod
    def begin(self, title: str, num_runs: int) -> None:
        """A part of the evaluation begins, and the one before has ended.

        Args:
            title: such as the task and the horizon.
            num_runs: that it makes at most.
        """

    @abstractmethod
    def work_on(self, name: str) -> None:
        """The runs of an optimizer begin."""

    @abstractmethod
    def advance(self, num_runs: float) -> None:
        """So many more runs are made; a part of the horizon of a run is a part of a run."""


class Silent(Progress):
    """Tells nobody."""

    @override
    def begin(self, title: str, num_runs: int) -> None:
        pass

    @override
    def work_on(self, name: str) -> None:
        pass

    @override
    def advance(self, num_runs: float) -> None:
        pass


SILENT = Silent()

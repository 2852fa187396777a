"""The folder of a meta-training from Python: whose it is, and what a new call goes on from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from learned_opt.api.settings import Settings
from learned_opt.core.errors import RunError, UsageError
from learned_opt.runtime import folder_lock, run_identity
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.checkpoint_files import CheckpointError, newest

KEY = "folder"  # the argument that chooses another


class RunInFolder:
    """A run that keeps its files in a folder, or one that keeps none.

    As a context it holds the lock of the folder.

    Args:
        path: the folder; None for none.
        settings: of the run, by which the folder knows it again.

    Raises:
        ValueError: another process writes there, or the folder is that of another run.
        RunError: every checkpoint in it is damaged.
        OSError: it cannot be made or written to.
    """

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.checkpoint: Path | None = None

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        with _told_to_callers():
            folder_lock.acquire(self.path, KEY)
        try:
            self.checkpoint = self._find_start(self.path)
        except BaseException:
            folder_lock.release(self.path)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.path is not None:
            folder_lock.release(self.path)

    def keep_identity(self) -> None:
        """Write down whose folder this is; called once nothing can be refused any more."""
        if self.path is not None:
            run_identity.keep(self.path, self.settings.identity)

    def _find_start(self, path: Path) -> Path | None:
        try:
            file = newest(RunFolder(path).checkpoints)
        except CheckpointError as error:
            raise RunError(str(error)) from error

        if file is not None and not RunFolder(path).identity.is_file():
            raise ValueError(
                f"folder {path} holds checkpoints, but not the settings that they belong to; "
                "choose another folder."
            )
        with _told_to_callers():
            run_identity.refuse_another(path, self.settings.identity, KEY)
        return file


@contextmanager
def _told_to_callers() -> Iterator[None]:
    """What a person at the keyboard would be told, as an error about an argument."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from None

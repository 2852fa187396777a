"""Where data sets come from: a local folder in the hub's layout, the hub, or its cache."""

import logging
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict

log = logging.getLogger(__name__)

PATIENCE = 8.0  # seconds to wait for the hub's first answer
PATTERNS = ("*.parquet", "data/*.parquet")  # where parquet files lie in a data set's folder


def load_splits(
    name: str,
    hub_id: str,
    root: str | None,
    embedded: str,
    config: str | None = None,
    columns: tuple[str, ...] = (),
    revision: str | None = None,
) -> "DatasetDict":
    """Load all splits of a data set and check that they are what a caller needs.

    Args:
        name: name of the data set, and of its folder below ``root``.
        hub_id: data set on the hub.
        root: folder that holds ``name/`` (or is that folder) with parquet files; None for the hub
            or its local cache.
        embedded: the data set that an error offers because it needs no network, e.g. ``digits``.
        config: configuration of the data set on the hub, and its folder below ``name/``.
        columns: columns that the splits ``train`` and ``test`` must have.
        revision: branch of the data set on the hub, None for its main one.

    Raises:
        ValueError: a split or column is missing, or the files cannot be read.
        FileNotFoundError: no parquet files below ``root``.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    import datasets

    datasets.disable_progress_bars()
    if root is None:
        remedy = (
            f"set root to a folder that holds {name}/ with its parquet files, or use the embedded "
            f"data set {embedded}"
        )
        splits = load_hub(hub_id, remedy, config, revision)
    else:
        splits = _load_local(name, Path(root).expanduser(), config)
    _check_columns(name, splits, columns)
    return splits


def _load_local(name: str, root: Path, config: str | None) -> "DatasetDict":
    import datasets
    from datasets.exceptions import DatasetGenerationError

    folders = [root / name, root]
    if config:
        folders = [folder / config for folder in folders]

    folder = _first_with_parquet(folders)
    if folder is None:
        names = " or ".join(str(folder) for folder in folders)
        raise FileNotFoundError(f"root: no parquet files in {names}.")

    try:
        return datasets.load_dataset(str(folder))
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise ValueError(f"root: the files in {folder} cannot be read: {error}.") from error


def _first_with_parquet(folders: list[Path]) -> Path | None:
    for folder in folders:
        for pattern in PATTERNS:
            if any(folder.glob(pattern)):
                return folder
    return None


def load_hub(
    hub_id: str, remedy: str, config: str | None = None, revision: str | None = None
) -> "DatasetDict":
    """Load a data set of the hub, or of its local cache where the hub does not answer.

    Args:
        hub_id: data set on the hub.
        remedy: what an error says to do.
        config: configuration of the data set.
        revision: branch of the data set, None for its main one.

    Raises:
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    import datasets
    from datasets import config as settings
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _hub_answers(constants.ENDPOINT):
        log.warning(
            "%s does not answer within %g s: data sets come from the local cache alone",
            constants.ENDPOINT,
            PATIENCE,
        )
        # both are copied at import, so setting the environment would come too late
        constants.HF_HUB_OFFLINE = True
        settings.HF_HUB_OFFLINE = True

    try:
        return datasets.load_dataset(hub_id, config, revision=revision)
    except (ConnectionError, FileNotFoundError, OSError) as error:
        problem = "cannot be loaded from the hub"
        if constants.HF_HUB_OFFLINE:
            problem = "is not in the local cache and the hub cannot be reached"
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConnectionError(f"data set {hub_id} {problem} ({reason}); {remedy}.") from error


def _hub_answers(endpoint: str) -> bool:
    """Whether the hub answers a request in time.

    A thread bounds what no socket timeout does: the look-up of the hub's name.
    """
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.request.HTTPError:
            pass  # an answer all the same
        except OSError:
            return
        answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)


def _check_columns(name: str, splits: "DatasetDict", columns: tuple[str, ...]) -> None:
    for split in ("train", "test"):
        if split not in splits:
            names = ", ".join(str(key) for key in splits)
            raise ValueError(
                f"data set {name} must have the splits train and test, it has: {names}."
            )

        missing = set(columns) - set(splits[split].column_names)
        if missing:
            names = ", ".join(splits[split].column_names)
            raise ValueError(
                f"data set {name} lacks the column {', '.join(sorted(missing))}; it has: {names}."
            )

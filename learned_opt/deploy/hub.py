"""Where weights come from: packaged with this version, a local folder, or the Hugging Face hub."""

import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import get_session

from learned_opt.deploy import published
from learned_opt.runtime.run_folder import THETA, THETA_METADATA

FILES = (THETA, THETA_METADATA)
PACKAGED = Path(__file__).with_name("pretrained")  # NAME/theta.safetensors, theta.json, card.md
PATIENCE = 5.0  # seconds to wait for the hub's first answer


def find(name: str | Path, revision: str | None = None) -> Path:
    """The ``theta.safetensors`` that a name stands for.

    Args:
        name: a packaged name, a folder that holds the file (a run folder, say) or the file itself,
            or ``owner/name`` on the hub. The file may be its authors' ``theta.state``.
        revision: branch, tag or commit on the hub.

    Raises:
        ValueError: nothing has that name; lists the packaged ones.
        ConnectionError: the hub cannot be reached and its cache does not hold the files.

    >>> find("unf-transfer").name
    'theta.safetensors'
    """
    path = Path(name).expanduser()
    for candidate in (PACKAGED / name / THETA, path / THETA, path / published.FILE, path):
        if candidate.is_file():
            return candidate

    if str(name) in published.names():
        raise ValueError(
            f"{name} is not packaged: download its authors' {published.FILE}, whose path stands "
            f"for it (in Python weights=FILE)."
        )
    if path.is_dir():
        raise ValueError(f"the folder {path} holds no {THETA}.")
    if isinstance(name, Path) or str(name).count("/") != 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"nothing is called {str(name)!r}: it must be {_choices()}.")
    return _download(name, revision)


def packaged() -> list[str]:
    """Names of the weights that come with this version, sorted."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{THETA}"))


def push(folder: Path, repo_id: str, **options: Any) -> str:
    """Upload the files of a folder to a model repository, which is made if there is none.

    Args:
        folder: with ``theta.safetensors`` and ``theta.json``, perhaps ``README.md``, the model
            card.
        repo_id: ``owner/name``.
        options: of ``HfApi.create_repo``, e.g. ``private``, ``token``.

    Returns:
        str: address of the commit.

    Raises:
        ConnectionError: the hub cannot be reached.
    """
    if not _answers(constants.ENDPOINT):
        raise ConnectionError(
            f"{repo_id} cannot be pushed: {constants.ENDPOINT} cannot be reached."
        )

    api = huggingface_hub.HfApi(token=options.get("token"))
    repo_id = api.create_repo(repo_id, exist_ok=True, **options).repo_id
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=folder, commit_message="Learned optimizer"
    )
    return str(commit.commit_url)


def _download(repo_id: str, revision: str | None) -> Path:
    # asked first, because the library tries five times, for 23 seconds
    offline = constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)
    download = partial(
        huggingface_hub.hf_hub_download, repo_id, revision=revision, local_files_only=offline
    )
    try:
        try:
            paths = [Path(download(file)) for file in FILES]
        except EntryNotFoundError:  # online: the repository has no such file
            return Path(download(published.FILE))
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{repo_id!r} is no local folder, its files are not in the hub's cache, and "
            f"{constants.ENDPOINT} cannot be reached. Without a network the name must be "
            f"{_choices()}."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{repo_id!r} cannot be had from the hub: {reason}") from error
    return paths[FILES.index(THETA)]


def _answers(endpoint: str) -> bool:
    """Whether the hub answers in time.

    A thread bounds what no timeout of a socket does, the name lookup.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=PATIENCE)
        except Exception as error:  # what it raises depends on the library's HTTP client
            logging.getLogger(__name__).debug("no answer: %s", error)
        else:
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)


def _choices() -> str:
    """What a name may be, for messages."""
    choices = [*packaged(), f"a folder that holds {THETA}", "or owner/name of the hub"]
    return ", ".join(choices)

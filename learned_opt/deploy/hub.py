"""Where weights come from: packaged with this version, a local folder, or the hub of Hugging Face."""

import logging
import threading
from pathlib import Path
from typing import Any

FILES = ("theta.safetensors", "theta.json")
PACKAGED = Path(__file__).with_name("pretrained")  # NAME/theta.safetensors, theta.json, card.md
PATIENCE = 5.0  # seconds to wait for the hub's first answer


def find(name: str | Path, revision: str | None = None) -> Path:
    """The ``theta.safetensors`` that a name stands for.

    Args:
        name: a packaged name, a folder that holds the file (a run folder, say) or the file itself, or ``owner/name``
            on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        ValueError: nothing has that name; lists the packaged ones.
        ConnectionError: the hub cannot be reached and its cache does not hold the files.
    """
    folder = Path(name).expanduser()
    for path in (PACKAGED / name / FILES[0], folder / FILES[0], folder):
        if path.is_file():
            return path
    if folder.is_dir():
        raise ValueError(f"the folder {folder} holds no {FILES[0]}.")
    if isinstance(name, Path) or str(name).count("/") != 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"nothing is called {str(name)!r}: it must be {_choices()}.")
    return _download(name, revision)


def packaged() -> list[str]:
    """Names of the weights that come with this version."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{FILES[0]}"))


def push(folder: Path, repo_id: str, **options: Any) -> str:
    """Upload the files of a folder to a model repository of the hub, which is made if there is none.

    Args:
        folder: with ``theta.safetensors`` and ``theta.json``, perhaps ``README.md``, the model card.
        repo_id: ``owner/name``.
        options: of ``HfApi.create_repo``, e.g. ``private``, ``token``.

    Returns:
        str: address of the commit.

    Raises:
        ConnectionError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    if not _answers(constants.ENDPOINT):
        raise ConnectionError(
            f"{repo_id} cannot be pushed: {constants.ENDPOINT} cannot be reached."
        )
    api = HfApi(token=options.get("token"))
    repo_id = api.create_repo(repo_id, exist_ok=True, **options).repo_id
    return str(
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Learned optimizer"
        ).commit_url
    )


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # asked first, because the library tries five times, for 23 seconds
    offline = constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)
    try:
        theta, _ = [
            hf_hub_download(repo_id, file, revision=revision, local_files_only=offline)
            for file in FILES
        ]
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{repo_id!r} is no local folder, its files are not in the hub's cache, and {constants.ENDPOINT} cannot be "
            f"reached. Without a network the name must be {_choices()}."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"{repo_id!r} cannot be had from the hub: {str(error).strip().splitlines()[-1]}"
        ) from error
    return Path(theta)


def _answers(endpoint: str) -> bool:
    """Whether the hub answers in time; a thread bounds what no timeout of a socket does, the name lookup."""
    from huggingface_hub.utils import get_session

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
    names = packaged()
    return f"{', '.join(names) + ', ' if names else ''}a folder that holds {FILES[0]}, or owner/name of the hub"

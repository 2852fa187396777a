"""``runs/NAME/latest``, a link to the newest run of a name, and ``runs/sweeps/latest``.

It is made with the folder, and is as good as the name of that folder in every word of a command
line: what is kept of a run is the folder itself, since the link will soon point elsewhere.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from learned_opt.core import files

NAME = "latest"
# the link in words such as theta={old: runs/mlp/latest} or hydra.run.dir=runs/mlp/latest
IN_A_WORD = re.compile(rf"[^\s=,:{{}}\[\]'\"]*\b{NAME}(?=[/,}}\]'\"]|$)")

log = logging.getLogger(__name__)


def point_at(folder: Path) -> str | None:
    """Let the link beside a folder point to it, also while other runs do the same.

    A file system without links is no reason to fail, nor is another file of that name: there is
    then no link.

    Returns:
        str | None: what it has pointed to before, for ``take_back``.
    """
    link = folder.with_name(NAME)
    before = _target(link)
    if before is None and link.exists():
        log.debug("%s is no link, and stays as it is", link)
        return None
    try:
        files.write_link(link, folder.name)
    except OSError as error:
        log.debug("%s cannot be made: %s", link, error)
    return before


def take_back(folder: Path, before: str | None) -> None:
    """Undo ``point_at`` for a folder that has been removed, where no other run has come since.

    Args:
        folder: that was removed.
        before: what ``point_at`` has returned.
    """
    link = folder.with_name(NAME)
    if _target(link) != folder.name:
        return
    if before is None:
        link.unlink(missing_ok=True)
    else:
        files.write_link(link, before)


def followed(words: Sequence[str]) -> list[str]:
    """The words of a command line with the folders to which links point in place of the links.

    ``report runs/mlp/*`` names the newest run twice, by itself and by the link, and means it once.
    """
    real = [IN_A_WORD.sub(_real_folder, word) for word in words]
    kept = []
    for before, after in zip(words, real, strict=True):
        is_another = before == after or after.rstrip("/") not in {
            word.rstrip("/") for word in words
        }
        if is_another:
            kept.append(after)
    return kept


def _real_folder(match: re.Match[str]) -> str:
    link = Path(match[0])
    target = _target(link)
    folder = link.with_name(target) if target else link
    return str(folder) if folder.is_dir() and folder != link else match[0]


def _target(link: Path) -> str | None:
    """The name that a link of ours holds, None where there is none."""
    try:
        target = os.readlink(link)
    except OSError:
        return None
    return target if target not in ("", ".", "..") and "/" not in target else None

"""The code that a run is made with: commit, what differs from it, versions.

It is asked for when a run is submitted and when it starts, not when it ends: whoever edits the code
meanwhile would have the record name code that did not run.
"""

import functools
import hashlib
import json
import logging
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from learned_opt.core.files import write_json, write_text
from learned_opt.runtime import untracked_files
from learned_opt.runtime.job_file import time_stamp
from learned_opt.runtime.run_folder import RunFolder, SweepFolder

log = logging.getLogger(__name__)
PACKAGES = ("torch", "lightning")
DIRTY = "-dirty"  # how git marks a commit from which files differ
# of files that git does not know, those that a run may read; notes and results are left alone
CODE = {".py", ".pyi", ".yaml", ".yml", ".toml", ".cpp", ".cu", ".h", ".sh"}
Facts = dict[str, Any]


class CodeState(NamedTuple):
    """The code of this process."""

    revision: str  # the commit, marked when files differ from it; unknown outside of a checkout
    changes: str  # to the commit, new files included, as a patch; empty where there are none
    versions: dict[str, str]  # of Python and PACKAGES

    @property
    def digest(self) -> str:
        """First digits of the SHA-256 of the changes; empty where there are none."""
        return hashlib.sha256(self.changes.encode()).hexdigest()[:12] if self.changes else ""

    @property
    def facts(self) -> Facts:
        """What is written down, and compared with another start."""
        return {"git": self.revision, "changes": self.digest, **self.versions}


@functools.cache
def code_state() -> CodeState:
    """The code as it is when this process first asks; later edits are not in the process."""
    revision = _git("describe", "--always", "--dirty", "--abbrev=12").strip() or "unknown"
    changes = _git("diff", "HEAD", "--no-ext-diff") if revision.endswith(DIRTY) else ""
    if new_files := _new_files():
        changes = f"{new_files}{changes}"
        revision = f"{revision.removesuffix(DIRTY)}{DIRTY}"

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = _version(name)
    return CodeState(revision, changes, versions)


def record_submission(sweep: Path) -> None:
    """Write down the code with which the jobs of a sweep are submitted."""
    state = code_state()
    write_json(SweepFolder(sweep).submission, {"time": time_stamp(), **state.facts})
    _keep_changes(sweep, state)


def record_start(folder: Path, sweep: Path | None) -> None:
    """Write down the code with which a run starts, and name what differs from earlier.

    Args:
        folder: of the run.
        sweep: folder of the sweep that the run is a job of, if it is one.
    """
    state = code_state()
    starts = read_starts(folder)
    if starts:
        _tell_difference(starts[-1], state.facts, "the start before")

    start = {"time": time_stamp(), **state.facts}
    if sweep and (submission := _read(SweepFolder(sweep).submission)):
        start["submitted"] = submission
        _tell_difference(submission, state.facts, "its submission")

    write_json(RunFolder(folder).starts, [*starts, start])
    _keep_changes(folder, state)


def read_starts(folder: Path) -> list[Facts]:
    """The code at each start of a run, the first one first; empty where nothing is recorded."""
    starts = _read(RunFolder(folder).starts)
    return starts if isinstance(starts, list) else []


def earlier_code(folder: Path) -> dict[str, str]:
    """For ``theta.json``: the code of the submission and of earlier starts, where it differs.

    Args:
        folder: of the run.

    Returns:
        dict: empty where all of a run was made with one code.
    """
    revisions: dict[str, None] = {}
    for start in read_starts(folder):
        for facts in (start.get("submitted"), start):
            if facts and difference(facts, code_state().facts):
                revisions[f"{facts.get('git')} {facts.get('changes')}".strip()] = None
    return {"earlier_code": ", ".join(revisions)} if revisions else {}


def difference(before: Facts, after: Facts) -> str:
    """What is not the same of two states; empty where all is.

    >>> difference({"git": "a1", "torch": "2.5"}, {"git": "b2", "torch": "2.5"})
    'git a1 -> b2'
    """
    parts = []
    for key, value in after.items():
        if before.get(key) != value:
            parts.append(f"{key} {before.get(key) or 'none'} -> {value or 'none'}")
    return ", ".join(parts)


def _tell_difference(before: Facts, after: Facts, when: str) -> None:
    if changed := difference(before, after):
        log.warning("the code of this run differs from that of %s: %s", when, changed)


def _keep_changes(folder: Path, state: CodeState) -> None:
    path = RunFolder(folder).code_changes(state.digest)
    if state.changes and not path.exists():
        write_text(path, state.changes)


def _read(path: Path) -> Any:
    """Content of a JSON file; None where there is none or it is damaged, as nothing hangs on it."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _new_files() -> str:
    """A patch with the files of code that git does not know; empty where there are none."""
    top = _git("rev-parse", "--show-toplevel").rstrip("\n")
    if not top:
        return ""
    listed = _git("-C", top, "ls-files", "--others", "--exclude-standard", "-z")
    names = [name for name in listed.split("\0") if Path(name).suffix in CODE]
    return untracked_files.as_patch(Path(top), names)


def _git(*words: str) -> str:
    """What git says of the checkout of this file; empty where there is no git or no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        result = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.decode(errors="replace")

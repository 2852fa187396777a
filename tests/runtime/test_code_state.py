"""The code is recorded when a run is submitted and when it starts, not when it ends."""

import json
import logging
import subprocess

import pytest

from learned_opt.runtime import code_state, provenance
from learned_opt.runtime.code_state import CodeState

OLD = CodeState("aaaa", "", {"python": "3.11", "torch": "2.5"})
NEW = CodeState("bbbb-dirty", "diff --git a b\n", {"python": "3.11", "torch": "2.5"})


@pytest.fixture
def code(monkeypatch):
    """A function that sets the code of this process."""

    def set_code(state: CodeState) -> None:
        monkeypatch.setattr(code_state, "code_state", lambda: state)

    return set_code


def test_code_that_was_edited_since_the_submission_is_named(tmp_path, code, caplog) -> None:
    code(OLD)
    code_state.record_submission(tmp_path)
    code(NEW)
    with caplog.at_level(logging.WARNING):
        code_state.record_start(tmp_path / "0", tmp_path)
    sentence = f"its submission: git aaaa -> bbbb-dirty, changes none -> {NEW.digest}"
    assert sentence in caplog.text
    start = json.loads((tmp_path / "0" / "starts.json").read_text())[0]
    assert (start["git"], start["submitted"]["git"]) == ("bbbb-dirty", "aaaa")
    assert (tmp_path / "0" / f"code-{NEW.digest}.diff").read_text() == NEW.changes
    assert code_state.earlier_code(tmp_path / "0") == {"earlier_code": "aaaa"}


def test_a_run_that_goes_on_with_other_code_says_so(tmp_path, code, caplog) -> None:
    code(NEW)
    code_state.record_start(tmp_path, None)
    code_state.record_start(tmp_path, None)
    assert caplog.text == ""
    assert code_state.earlier_code(tmp_path) == {}
    code(OLD)
    code_state.record_start(tmp_path, None)
    assert "the start before: git bbbb-dirty -> aaaa" in caplog.text
    assert [start["git"] for start in code_state.read_starts(tmp_path)] == [
        "bbbb-dirty",
        "bbbb-dirty",
        "aaaa",
    ]
    assert code_state.earlier_code(tmp_path) == {"earlier_code": f"bbbb-dirty {NEW.digest}"}


def test_git_is_asked_once(monkeypatch) -> None:
    revision = provenance.git_revision()
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    assert provenance.git_revision() == revision


def test_without_git_the_code_is_unknown(monkeypatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    state = code_state.code_state.__wrapped__()
    assert (state.revision, state.changes, state.digest) == ("unknown", "", "")


def test_the_changes_are_those_of_the_checkout(tmp_path, monkeypatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    file = package / "code.py"
    file.write_text("one = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    monkeypatch.setattr(code_state, "__file__", str(file))
    clean = code_state.code_state.__wrapped__()
    assert clean.changes == ""
    file.write_text("one = 2\n")
    dirty = code_state.code_state.__wrapped__()
    assert dirty.revision == f"{clean.revision}-dirty"
    assert "+one = 2" in dirty.changes


def test_files_that_git_does_not_know_are_kept_or_named(tmp_path, monkeypatch) -> None:
    checkout = tmp_path / "checkout"
    package = checkout / "package"
    package.mkdir(parents=True)
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (checkout / ".gitignore").write_text("ignored.py\n")
    (package / "code.py").write_text("one = 1\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    monkeypatch.setattr(code_state, "__file__", str(package / "code.py"))

    mine = {"mine.py": "a\r\n\x0c+b\n\nc", "package/empty.py": "", "x.yaml": "seed: 1\n"}
    for name, text in mine.items():
        (checkout / name).write_bytes(text.encode())
    (checkout / "ignored.py").write_text("ignored")
    (checkout / "notes.txt").write_text("not read by a run")
    (checkout / "large.py").write_text("# " * 100_000)
    (checkout / "binary.py").write_bytes(b"\0\xff")
    (package / "code.py").write_text("one = 2\n")

    state = code_state.code_state.__wrapped__()
    assert state.revision.endswith("-dirty")
    assert "untracked, not kept here: 'large.py'" in state.changes
    assert "untracked, not kept here: 'binary.py'" in state.changes
    assert "ignored" not in state.changes
    assert "notes" not in state.changes

    # the patch makes them again, beside the change of the file that git knows
    again = tmp_path / "again"
    subprocess.run(["git", "clone", "-q", str(checkout), str(again)], check=True)
    patch = tmp_path / "code.diff"
    patch.write_bytes(state.changes.encode())
    subprocess.run(["git", "-C", str(again), "apply", str(patch)], check=True)
    assert (again / "package/code.py").read_text() == "one = 2\n"
    for name, text in mine.items():
        assert (again / name).read_bytes() == text.encode()


def test_new_files_alone_mark_the_commit(tmp_path, monkeypatch) -> None:
    (tmp_path / "code.py").write_text("one = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    monkeypatch.setattr(code_state, "__file__", str(tmp_path / "code.py"))
    clean = code_state.code_state.__wrapped__()
    assert (clean.changes, clean.revision[-6:] == "-dirty") == ("", False)

    (tmp_path / "mine.py").write_text("two = 2\n")
    assert code_state.code_state.__wrapped__().revision == f"{clean.revision}-dirty"

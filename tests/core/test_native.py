"""The cache of built kernels: who may write to it, damage, and the compiler's words."""

import _ctypes
import logging
import os
from pathlib import Path

import pytest

from learned_opt.core import native

PLANTED = 'extern "C" int answer() { return 13; }'


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A C++ file, and an empty cache for what is built of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    native.load.cache_clear()
    native._warn_once.cache_clear()
    native._note_once.cache_clear()
    path = tmp_path / "kernel.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    return path


def answer(source: Path) -> int:
    """What the library says that a new process would load."""
    native.load.cache_clear()
    library = native.load(source, ())
    assert library is not None
    number = library.answer()
    _ctypes.dlclose(library._handle)  # else the next one of this name is not read
    return number


def built() -> list[Path]:
    return sorted(native.cache_dir().glob("*.so"))


def test_a_library_is_kept_for_this_user_alone_and_built_once(source, monkeypatch) -> None:
    before = os.umask(0)  # a careless one
    try:
        assert answer(source) == 42
    finally:
        os.umask(before)
    (library,) = built()
    assert library.stat().st_mode & 0o777 == 0o600
    assert native.cache_dir().stat().st_mode & 0o777 == 0o700

    monkeypatch.setattr(native, "_build", None)  # no second build
    assert answer(source) == 42


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x7fELF and then nothing"])
def test_a_garbage_library_is_built_anew(source, content, caplog) -> None:
    answer(source)
    (library,) = built()
    library.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert answer(source) == 42
    assert f"{library} is damaged or not only yours; it is built anew." in caplog.text
    assert built() == [library]


def test_another_library_under_the_name_of_the_kernel_never_runs(source, tmp_path) -> None:
    answer(source)
    (library,) = built()
    planted = tmp_path / "planted.cpp"
    planted.write_text(PLANTED)
    assert answer(planted) == 13
    other = next(path for path in built() if path != library)
    library.write_bytes(other.read_bytes())
    assert answer(source) == 42


def test_a_library_that_others_can_write_is_built_anew(source, monkeypatch) -> None:
    answer(source)
    (library,) = built()
    library.chmod(0o666)
    assert answer(source) == 42
    assert library.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("which", ["cache", "cache/learned_opt"])
def test_a_cache_that_others_can_write_is_not_used(source, tmp_path, which, caplog) -> None:
    answer(source)
    (library,) = built()
    (tmp_path / which).chmod(0o777)
    written = library.stat().st_mtime_ns
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert answer(source) == 42
        assert answer(source) == 42
    (message,) = [record.getMessage() for record in caplog.records]
    assert "is not used, because others may write there (its mode is 777)" in message
    assert built() == [library]
    assert library.stat().st_mtime_ns == written


def test_a_cache_of_another_user_is_not_used(source, monkeypatch, caplog) -> None:
    answer(source)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert answer(source) == 42
    assert f"its owner is user {user}" in caplog.text


def test_a_world_writable_folder_with_the_sticky_bit_is_as_safe_as_tmp(source, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o1777)
    assert answer(source) == 42
    assert len(built()) == 1


def test_the_compiler_may_have_arguments(source, monkeypatch) -> None:
    source.write_text('extern "C" int answer() { return NUMBER; }')
    monkeypatch.setenv("CXX", "g++ -O2 '-DNUMBER=6 * 7'")
    assert answer(source) == 42


@pytest.mark.parametrize("compiler", ["", "no-such-compiler -O2", "g++ 'not closed"])
def test_a_compiler_that_is_none_is_reported(source, monkeypatch, compiler, caplog) -> None:
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert native.load(source, ()) is None
    assert "no C++ compiler was found (g++, or what CXX names)" in caplog.text


def test_a_compiler_that_writes_no_library_is_reported(source, monkeypatch, caplog) -> None:
    monkeypatch.setenv("CXX", "true")
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        assert native.load(source, ()) is None
    assert "kernel.cpp could not be built" in caplog.text

"""Files of a checkout that git does not know: a run may import them, and no commit holds them."""

from pathlib import Path

MAX_BYTES = 100_000  # of a file that is kept
MAX_TOTAL = 1_000_000  # bytes, of all that are kept
MAX_NAMES = 100  # that are listed

NEW_FILE = """\
diff --git a/{name} b/{name}
new file mode 100644
--- /dev/null
+++ b/{name}
@@ -0,0 +1,{count} @@
{lines}
"""
NO_END = "\\ No newline at end of file\n"  # as git marks it


def as_patch(checkout: Path, names: list[str]) -> str:
    r"""A patch that makes the small text files again, and names the others above it.

    Args:
        checkout: the top folder.
        names: of files below it, with slashes.

    Returns:
        str: what ``git apply`` takes; it skips the names. Empty where there are no files.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "mine.py").write_text("one = 1\n")
    >>> print(as_patch(folder, ["mine.py"]).splitlines()[-1])
    +one = 1
    """
    patches = []
    left_out = []
    total = 0
    for name in sorted(names):
        text = _small_text(checkout / name)
        size = len(text.encode()) if text else 0
        # a name that git would quote is only named
        if text is None or total + size > MAX_TOTAL or not _is_plain(name):
            left_out.append(name)
            continue
        total += size
        patches.append(_new_file(name, text))

    return _heading(left_out) + "".join(patches)


def _heading(names: list[str]) -> str:
    """The names of files that are not kept, a line each."""
    lines = [f"untracked, not kept here: {name!r}\n" for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        lines.append(f"untracked, not kept here: {len(names) - MAX_NAMES} more\n")
    return "".join(lines)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and not set('"\\') & set(name)


def _small_text(path: Path) -> str | None:
    """The content of a file; None where it is large, no text, or cannot be read."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def _new_file(name: str, text: str) -> str:
    if not text:
        return f"diff --git a/{name} b/{name}\nnew file mode 100644\n"

    # a line ends with a line feed alone: other separators are a part of it
    lines = text.removesuffix("\n").split("\n")
    body = "\n".join(f"+{line}" for line in lines)
    patch = NEW_FILE.format(name=name, count=len(lines), lines=body)
    return patch if text.endswith("\n") else patch + NO_END

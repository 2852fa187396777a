"""Writes the reference of configs from the YAML files and their comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
KEY = re.compile(r"""^(?P<indent> *)(?:- )?"?(?P<key>[\w.@/~*+-]+)"?:(?: +(?P<value>.*))?$""")
COMMENT = re.compile(r"""^((?:[^"'#]|"[^"]*"|'[^']*'|(?<=\S)#)*?)(?:^|\s+)#\s?(.*)$""")


@dataclass
class Key:
    """One line of a YAML file: the path of its key, its default and what its comment says."""

    path: str
    value: str
    comment: str


@dataclass
class ConfigFile:
    """What a YAML file says of itself, and its keys."""

    purpose: str
    defaults: list[str]
    keys: list[Key]


def split_comment(line: str) -> tuple[str, str]:
    """A line without its comment, and the comment."""
    match = COMMENT.match(line)
    if match is None:
        return line.rstrip(), ""
    return match[1].rstrip(), match[2].strip()


def parse(path: Path) -> ConfigFile:
    """Read a YAML file with its comments, which a YAML parser drops."""
    parents: list[tuple[int, str]] = []
    keys: list[Key] = []
    heading: list[str] = []
    waiting: list[str] = []  # comments on lines of their own, which belong to the next key
    defaults: list[str] = []
    in_defaults = False

    for line in path.read_text().splitlines():
        code, comment = split_comment(line)
        if not code:
            is_heading = not keys and not defaults and not in_defaults
            (heading if is_heading else waiting).append(comment)
            continue
        if in_defaults and code.lstrip().startswith("- "):
            defaults.append(code.strip().removeprefix("- "))
            continue

        match = KEY.match(code)
        in_defaults = code.strip() == "defaults:"
        if in_defaults or match is None:
            continue
        indent = len(match["indent"])
        parents = [(depth, name) for depth, name in parents if depth < indent]
        parents.append((indent, match["key"]))
        text = " ".join([part for part in [*waiting, comment] if part])
        keys.append(Key(".".join([name for _, name in parents]), match["value"] or "", text))
        waiting = []

    purpose = [text for text in heading if not text.startswith("@package")]
    return ConfigFile(" ".join(purpose).strip(), defaults, keys)


def cell(text: str, code: bool = False) -> str:
    """Text of a table: pipes would end the cell."""
    if not text:
        return ""
    plain = text.replace("|", "\\|")
    return f"`{plain}`" if code else plain.replace("<", "&lt;").replace("*", "\\*")


def target_link(value: str) -> str:
    """A class of this project leads to its page."""
    return f"{{py:obj}}`{value}`"


def table(keys: list[Key]) -> Iterator[str]:
    """One row for each key; a class by the name of its page."""
    yield "| key | default | meaning |\n| --- | --- | --- |\n"
    for key in keys:
        is_class = key.path.endswith("_target_")
        default = target_link(key.value) if is_class else cell(key.value, code=True)
        yield f"| `{key.path}` | {default} | {cell(key.comment)} |\n"


def section(title: str, config: ConfigFile) -> str:
    """One YAML file."""
    parts = [f"## {title}\n\n"]
    if config.purpose:
        parts.append(f"{cell(config.purpose)}\n\n")
    if config.defaults:
        parts.append("Takes over: " + ", ".join([f"`{name}`" for name in config.defaults]) + "\n\n")
    if config.keys:
        parts += list(table(config.keys))
        parts.append("\n")
    return "".join(parts)


def groups() -> dict[str, list[Path]]:
    """Group -> its files; a group is a folder that holds YAML files."""
    by_group: dict[str, list[Path]] = {}
    for path in sorted(CONFIGS.rglob("*.yaml")):
        by_group.setdefault(str(path.parent.relative_to(CONFIGS)), []).append(path)
    return by_group


def purposes() -> dict[str, str]:
    """What each group chooses, as configs/README.md says."""
    rows = re.findall(r"^\| (\S+) \| .*? \| (.*?) \|$", (CONFIGS / "README.md").read_text(), re.M)
    return dict(rows)


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    meanings = purposes()
    result = {}
    for group, paths in groups().items():
        is_top = group == "."
        title = "The main configs" if is_top else f"{group}: {meanings[group]}"
        parts = [f"# {title}\n\n"]
        if not is_top:
            choice = paths[0].stem
            parts.append(f"`{group}={choice}` on the command line takes `{choice}` below.\n\n")
        for path in paths:
            name = path.name if is_top else path.stem
            parts.append(section(name, parse(path)))
        file = "main" if is_top else group.replace("/", "_")
        result[f"{file}.md"] = "".join(parts)

    result["index.md"] = (
        "# Configs\n\nEvery group, file, key and default, from the YAML files and their comments.\n"
        "`${...}` is a value of another key, `???` must be given.\n\n"
        "```{toctree}\n:maxdepth: 1\n:glob:\n\nmain\n*\n```\n"
    )
    return result


def write_all(folder: Path) -> None:
    """Write the pages; those that have not changed keep their times."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for old in folder.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)

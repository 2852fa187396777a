"""Writes a page for each package, with every public name of each of its modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("learned_opt", "tasks")
# what commands do is in the pages of commands; their code has no users
INNER_ROOMS = ("commands", "compose", "reporting", "runtime")
NEEDS_A_GPU = ("fused_gpu.py",)  # imports Triton, which builds of torch for CPUs lack
FRONT = {  # package -> what stands above its modules
    "learned_opt": "What `import learned_opt` offers, and no more than that is needed by most.",
    "tasks": "What a task needs. Code of your own builds on these two.",
}


def is_public(node: ast.stmt) -> bool:
    """Whether a statement defines a class or a function for others."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
        return False
    # an operator of torch is no function any more
    return not any("custom_op" in ast.unparse(decorator) for decorator in node.decorator_list)


def public_names(path: Path) -> list[str]:
    """Classes and functions of a module that start with no underscore."""
    nodes = [node for node in ast.parse(path.read_text()).body if is_public(node)]
    return [node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def has_page(path: Path) -> bool:
    """Whether the names of a module are shown."""
    parts = path.relative_to(ROOT).parts
    is_inner = parts[0] == "learned_opt" and parts[1] in INNER_ROOMS
    return not is_inner and path.name not in NEEDS_A_GPU and bool(public_names(path))


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    """Every module with a public name, by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): path for path in paths if has_page(path)}


def packages() -> dict[str, list[str]]:
    """Package -> its modules that have a page of names."""
    by_package: dict[str, list[str]] = {}
    for name in modules():
        by_package.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return by_package


def doors(package: str) -> dict[str, str]:
    """The table of public names that a package imports lazily: name -> module."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    for node in tree.body:
        is_table = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLIC_NAMES"
        if is_table:
            return ast.literal_eval(node.value)
    return {}


def page(package: str, names: list[str]) -> str:
    """One package: a section for each module, its members by autodoc."""
    lines = [f"# {package}", "", "```{eval-rst}"]
    for name in names:
        lines += [name, "-" * len(name), "", f".. automodule:: {name}", "   :members:", ""]
    return "\n".join([*lines, "```", ""])


def front_page() -> Iterator[str]:
    """The public names, and a list of all packages."""
    yield "# API\n\n"
    yield "Written from the docstrings of the code when this site is built.\n\n"
    for package in PACKAGES:
        yield f"## {package}\n\n{FRONT[package]}\n\n"
        yield "| name | module |\n| --- | --- |\n"
        for name, module in doors(package).items():
            yield f"| {{py:obj}}`{name} <{module}.{name}>` | `{module}` |\n"
        yield "\n"
    yield "## All packages\n\n| package | modules |\n| --- | --- |\n"
    for package, names in packages().items():
        yield f"| [{package}]({package}.md) | {len(names)} |\n"
    yield "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def write_all(folder: Path) -> None:
    """Write the pages of all packages; those that have not changed keep their times."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{package}.md": page(package, names) for package, names in packages().items()}
    pages["index.md"] = "".join(front_page())

    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)

"""What no linter checks of how this project is written: design.md section 8, rules 1 and 2."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder in ("learned_opt", "tasks", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BANNED = {"own", "place", "say", "given", "found", "what", "now"}
# keys of theta in files that people keep: their names stay
KEYS_OF_THETA = {("nfn.py", "own")}
MAX_LINES = 300
MAX_FUNCTION = 60  # lines, without the docstring


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def located(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def packed_assignments(tree: ast.Module) -> Iterator[ast.AST]:
    """``a, b, c = x, y, z``: three statements in one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        for target in node.targets:
            if isinstance(target, ast.Tuple) and len(target.elts) > 2:
                yield node


def nested_comprehensions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inside = [part for part in ast.walk(node) if part is not node]
            if any(isinstance(part, COMPREHENSIONS) for part in inside):
                yield node


def banned_names(tree: ast.Module) -> Iterator[ast.AST]:
    """Names that say nothing, where they are made: variables, parameters, attributes, functions."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        if name and name.strip("_").lower() in BANNED:
            yield node


def long_functions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            if ast.get_docstring(node) and len(node.body) > 1:
                first = node.body[1]
            if (node.end_lineno or 0) - first.lineno >= MAX_FUNCTION:
                yield node


RULES = {
    "three or more targets of one assignment": packed_assignments,
    "a comprehension inside of another": nested_comprehensions,
    "a name that says nothing": banned_names,
    f"a function of more than {MAX_FUNCTION} lines": long_functions,
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_breaks_the_rule(rule) -> None:
    offenders = []
    for path in FILES:
        for node in RULES[rule](parsed(path)):
            if (path.name, getattr(node, "attr", "")) not in KEYS_OF_THETA:
                offenders.append(located(path, node))
    assert not offenders, f"{rule}: {', '.join(offenders)}"


def test_no_file_is_longer_than_a_reader_holds() -> None:
    long = [str(path.relative_to(ROOT)) for path in FILES if _num_lines(path) > MAX_LINES]
    assert not [name for name in long if not name.startswith("tests/")], long


def _num_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_rules_see_what_they_are_about() -> None:
    """A rule that finds nothing anywhere would be worth nothing."""
    text = "a, b, c = 1, 2, 3\nx = [[i for i in j] for j in k]\ndef f(own): pass\n"
    text += "def g():\n" + 70 * "    pass\n"
    for rule in RULES.values():
        assert len(list(rule(ast.parse(text)))) == 1
    assert not list(packed_assignments(ast.parse("low, high = 1, 2\na, b, c = f()")))

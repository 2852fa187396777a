"""The parts that ``evaluation.json`` may have: their types, with a sentence for each."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

TEXTS = ("task", "axis", "point", "optimizer", "start")  # columns of a row
WHOLE = ("horizon", "seed")
LARGEST = 2**63 - 1  # figure that a table holds
MAX_SHOWN = 40  # letters of a value in a sentence
# list -> the texts that each of its rows must have
NEEDED = {
    "rows": ("task", "optimizer"),
    "left_out": ("task", "optimizer", "axis", "point", "reason"),
    "budgets": ("task", "optimizer", "axis", "point"),
    "origins": ("task", "optimizer", "sentence", "command"),
}
SECONDS = ("tuning_seconds", "run_seconds")  # of a budget
OF_TUNING = ("tries", "seeds", "diverged_tries", "reused", "learning_rate")  # numbers


def check(content: Mapping[str, Any]) -> None:
    """Refuse what no evaluation writes.

    Args:
        content: of a file of today's format.

    Raises:
        ValueError: names the part, the rule and the value.
    """
    _check_text("reference", content.get("reference"))
    for name in ("learned", "warnings"):
        _check_kind(name, content.get(name), list, "a list of texts")
        for text in content[name]:
            _check_text(f"each of {name}", text)

    for name in ("facts", "tasks"):
        _check_kind(name, content.get(name), dict, "an object")
    for name, value in content["facts"].items():
        _check_kind(f"facts.{name}", value, str | int | float, "a text or a number")
    for task, description in content["tasks"].items():
        _check_kind(f"tasks.{task}", description, dict, "an object")

    trainings = content.get("meta_trainings", {})  # files of before have none
    _check_kind("meta_trainings", trainings, dict, "an object")
    for name, training in trainings.items():
        _check_row(f"meta_trainings.{name}", training, ("optimizer",))
        _check_kind(f"meta_trainings.{name}.seed", training.get("seed"), int, "a whole number")

    for name, needed in NEEDED.items():
        _check_kind(name, content.get(name), list, "a list of objects")
        for i, row in enumerate(content[name]):
            _check_row(f"{name}[{i}]", row, needed)
    check_results(content["rows"])
    for i, row in enumerate(content["budgets"]):
        _check_budget(f"budgets[{i}]", row)


def check_results(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows of an optimizer and a seed that no evaluation writes.

    Raises:
        ValueError: names the part, the rule and the value.
    """
    for i, row in enumerate(rows):
        where = f"rows[{i}]"
        _check_row(where, row, NEEDED["rows"])
        _check_result(where, row)


def _check_row(where: str, row: Any, needed: Collection[str]) -> None:
    _check_kind(where, row, dict, "an object")
    for name in needed:
        _check_text(f"{where}.{name}", row.get(name))
    _check_number(f"{where}.horizon", row.get("horizon", 1))


def _check_result(where: str, row: Mapping[str, Any]) -> None:
    """Check the figures of a row; those that it lacks are null."""
    _check_kind(f"{where}.heldout", row.get("heldout"), dict, "an object")
    if not isinstance(row.get("diverged"), bool):
        raise ValueError(f"{where}.diverged must be true or false")

    for name in WHOLE:
        _check_number(f"{where}.{name}", row.get(name))
    for name, value in {**row, **row["heldout"]}.items():
        if name in TEXTS:
            _check_text(f"{where}.{name}", "" if value is None else value)
        elif name not in ("heldout", "diverged") and value is not None:
            _check_number(f"{where}.{name}", value)


def _check_budget(where: str, row: Mapping[str, Any]) -> None:
    for name in SECONDS:
        _check_number(f"{where}.{name}", row.get(name))
    if "tries" in row:
        _check_text(f"{where}.criterion", row.get("criterion"))
        for name in OF_TUNING:
            _check_number(f"{where}.{name}", row.get(name))


def _check_kind(name: str, value: Any, kind: Any, rule: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {rule}, it is {_shown(value)}")


def _check_text(name: str, value: Any) -> None:
    _check_kind(name, value, str, "a text")


def _check_number(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > LARGEST:
        raise ValueError(f"{name} must be a number, it is {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."

"""Checks of numbers that a person has chosen: finite, and in a range that means something.

Each raises one sentence with the argument's name, the rule and the value.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any


def check_at_least(least: float, **values: Any) -> None:
    """Refuse numbers below a bound, and NaN or infinite ones.

    Args:
        least: the smallest number that is allowed.
        **values: numbers by the names of their arguments.

    Raises:
        ValueError: names the first argument that is out of the range.

    >>> check_at_least(1, num_tasks=0)
    Traceback (most recent call last):
    ValueError: num_tasks must be at least 1, got 0.
    """
    for name, value in values.items():
        _check_number(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_positive(**values: Any) -> None:
    """Refuse numbers that are not above zero, and NaN or infinite ones.

    Raises:
        ValueError: names the first argument that is out of the range.

    >>> check_positive(sigma=float("nan"))
    Traceback (most recent call last):
    ValueError: sigma must be a finite number, got nan.
    """
    for name, value in values.items():
        _check_number(name, value)
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}.")


def check_between(low: float, high: float, **values: Any) -> None:
    """Refuse numbers outside of a closed range, and NaN or infinite ones.

    Args:
        low: the smallest number that is allowed.
        high: the largest number that is allowed.
        **values: numbers by the names of their arguments.

    Raises:
        ValueError: names the first argument that is out of the range.
    """
    for name, value in values.items():
        _check_number(name, value)
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, got {value}.")


def check_each(name: str, values: Mapping[str, Any], least: float) -> None:
    """Refuse entries of a mapping that are below a bound, NaN or infinite.

    Args:
        name: the argument's name; messages say ``name[key]``.
        values: numbers by their keys.
        least: the smallest number that is allowed.

    Raises:
        ValueError: names the first entry that is out of the range.
    """
    for key, value in values.items():
        check_at_least(least, **{f"{name}[{key}]": value})


def _check_number(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{name} must be a number, got {value!r}.")
    if not isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}.")

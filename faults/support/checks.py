"""Checks of numbers that a user gave."""

from __future__ import annotations

import math

from monkeyproof.errors import UsageError


def check_between(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    """Raise UsageError unless ``low <= value <= high``; ``low < value`` with ``above``."""
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low):  # type: ignore[operator]
        beginning = "more than" if above else "at least"
        raise UsageError(f"{name}: {value!r} is not a number that is {beginning} {low:g} and at most {high:g}")


def check_count(name: str, value: object, low: int, high: int) -> None:
    """Raise UsageError unless ``value`` is a whole number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name}: {value!r} is not a whole number from {low} to {high}")

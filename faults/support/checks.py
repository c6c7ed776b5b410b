"""Checks of the arguments that a user gives to a fault: pure functions, so that every family can share them.

The checks that the data engine needs as well are in ``monkeyproof.faults.corruption.checks``, because the engine
imports nothing of the harness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.checks import check_above_zero, check_number, check_rows, check_share

__all__ = [
    "LINK_SHARE_MIN",
    "check_above_zero",
    "check_at_least_zero",
    "check_between",
    "check_count",
    "check_link_share",
    "check_number",
    "check_one_of",
    "check_rows",
    "check_share",
]

LINK_SHARE_MIN = 1e-6
"""Of the requests or bytes that pass a link."""


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


def check_at_least_zero(name: str, value: object) -> None:
    """Raise UsageError unless ``value`` is a whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name}: {value!r} is not a whole number of at least 0")


def check_link_share(name: str, value: float) -> None:
    """As ``check_share``, of what passes a link: a proof of less than one in a million would take too long."""
    check_number(name, value)
    check_share(name, value)
    if value < LINK_SHARE_MIN:
        raise UsageError(f"{name}: {value} is less than {LINK_SHARE_MIN:g}, one in a million")


def check_one_of(name: str, value: object, among: Sequence[str]) -> None:
    """Raise UsageError unless ``value`` is one of ``among``."""
    if value not in among:
        raise UsageError(f"{name}: {value!r} is not {' or '.join(map(repr, among))}")

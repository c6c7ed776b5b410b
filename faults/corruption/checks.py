"""Checks of the numbers that a user gives to a fault. They need nothing of the harness but its errors."""

from __future__ import annotations

import math

from monkeyproof.errors import UsageError


def check_number(name: str, value: object) -> None:
    """Raise UsageError unless ``value`` is a finite number; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name}: {value!r} is not a finite number")


def check_share(name: str, value: float) -> None:
    """Raise UsageError unless ``0 < value <= 1``."""
    if not 0 < value <= 1:
        raise UsageError(f"{name}: {value} is not in (0, 1]; 0.3 means three of ten")


def check_range(low: float, high: float) -> None:
    """Raise UsageError unless a number can be drawn from between the two bounds."""
    check_number("low", low)
    check_number("high", high)
    if low > high:
        raise UsageError(f"low: {low} is above high, {high}")
    if not math.isfinite(high - low):
        raise UsageError(f"low, high: from {low} to {high} is too far apart")


def check_above_zero(name: str, value: float) -> None:
    """Raise UsageError unless ``value`` is a finite number above 0."""
    check_number(name, value)
    if value <= 0:
        raise UsageError(f"{name}: {value} is not above 0")


def check_rows(name: str, rows: object, least: int) -> None:
    """Raise UsageError unless ``rows`` is an absolute row, or a number of rows, of at least ``least``."""
    if isinstance(rows, bool) or not isinstance(rows, int) or not least <= rows <= 2**62:
        raise UsageError(f"{name}: {rows!r} is not a whole number of at least {least}")

"""Shrinking a failure to the fewest parts that still fail: delta debugging. Pure; the tests are the caller's.

A. Zeller and R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE Transactions on Software
Engineering 28(2), 2002: the algorithm ``ddmin``, which returns a 1-minimal subset: without any one of its parts it
does not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Fails = Callable[[tuple[T, ...]], bool | None]
"""Whether a subset fails; None where the test does not show it, which keeps the larger subset."""


class ShrinkBudgetSpent(Exception):
    """Raised by a test that may not run any more: no time, or no trials, are left."""


@dataclass(frozen=True, slots=True)
class ShrinkResult(Generic[T]):
    """The smallest failing subset that was found."""

    parts: tuple[T, ...]
    minimal: bool
    """Whether a test showed that each of its parts is needed; otherwise the tests ended before that."""
    tests_count: int
    """How many subsets were tried."""
    unknown_count: int
    """How many of them did not show whether they fail."""


def ddmin(parts: Sequence[T], fails: Fails[T]) -> ShrinkResult[T]:
    """Shrink ``parts``, which are known to fail together.

    No subset is tried twice, and never all of them nor none. A subset that does not show whether it fails
    counts as one that does not, so the result has failed in a test.
    """
    outcomes: dict[frozenset[int], bool | None] = {}

    def failing(places: Sequence[int]) -> bool:
        key = frozenset(places)
        if key not in outcomes:
            outcomes[key] = fails(tuple(parts[place] for place in places))
        return outcomes[key] is True

    left, count, minimal = list(range(len(parts))), 2, True
    try:
        while len(left) >= 2:
            chunks = [left[len(left) * i // count : len(left) * (i + 1) // count] for i in range(count)]
            rests = [[one for one in left if one not in chunk] for chunk in chunks] if count > 2 else []
            if (smaller := next(filter(failing, chunks), None)) is not None:
                left, count = smaller, 2
            elif (smaller := next(filter(failing, rests), None)) is not None:
                left, count = smaller, max(count - 1, 2)
            elif count < len(left):
                count = min(2 * count, len(left))
            else:
                break
    except ShrinkBudgetSpent:
        minimal = False
    unknown = [key for key, failed in outcomes.items() if failed is None]
    # The part that such a subset leaves out may not be needed.
    minimal = minimal and not any(key < frozenset(left) and len(key) == len(left) - 1 for key in unknown)
    return ShrinkResult(tuple(parts[place] for place in left), minimal, len(outcomes), len(unknown))


def tried_again(fails: Fails[T], times: int) -> Fails[T]:
    """A test of a failure that comes and goes: True as soon as it fails once in ``times`` tries."""

    def at_least_once(parts: tuple[T, ...]) -> bool | None:
        found: list[bool | None] = []
        for _ in range(times):
            found.append(fails(parts))
            if found[-1]:
                return True
        return None if None in found else False

    return at_least_once

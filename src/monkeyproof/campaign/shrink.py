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
"""Whether a subset fails; None where nobody can tell, which keeps the larger one."""


class Spent(Exception):
    """Raised by a test that may not be made any more: no time, or no trials, are left."""


@dataclass(frozen=True, slots=True)
class Shrunk(Generic[T]):
    """The smallest failing subset that was found."""

    parts: tuple[T, ...]
    minimal: bool
    """Whether each of its parts was seen to be needed; otherwise the tests ended before that."""
    tests_count: int
    """How many subsets were tried."""
    untold_count: int
    """Of how many of them nobody could tell."""


def ddmin(parts: Sequence[T], fails: Fails[T]) -> Shrunk[T]:
    """Shrink ``parts``, which are known to fail together.

    No subset is tried twice, and never all of them nor none. A subset of which nobody could tell counts as one
    that does not fail, so the result was seen to fail.
    """
    told: dict[frozenset[int], bool | None] = {}

    def failing(places: Sequence[int]) -> bool:
        key = frozenset(places)
        if key not in told:
            told[key] = fails(tuple(parts[place] for place in places))
        return told[key] is True

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
    except Spent:
        minimal = False
    untold = [key for key, said in told.items() if said is None]
    # What was left out of those may not be needed.
    minimal = minimal and not any(key < frozenset(left) and len(key) == len(left) - 1 for key in untold)
    return Shrunk(tuple(parts[place] for place in left), minimal, len(told), len(untold))


def tried_again(fails: Fails[T], times: int) -> Fails[T]:
    """A test of something that fails now and then: True as soon as it fails once in so many tries."""

    def at_least_once(parts: tuple[T, ...]) -> bool | None:
        said: list[bool | None] = []
        for _ in range(times):
            said.append(fails(parts))
            if said[-1]:
                return True
        return None if None in said else False

    return at_least_once

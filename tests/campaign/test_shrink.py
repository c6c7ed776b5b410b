from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.campaign.shrink import ShrinkBudgetSpent, ddmin, tried_again


def needs(*parts: int) -> Callable[[tuple[int, ...]], bool]:
    """Fails with all of these parts together, whatever else is there."""
    return lambda tried: set(parts) <= set(tried)


@pytest.mark.parametrize(
    ("count", "needed"), [(1, [0]), (2, [1]), (8, [3]), (8, [0, 7]), (8, [2, 3, 5]), (5, [0, 1, 2, 3, 4])]
)
def test_the_fewest_that_still_fail(count: int, needed: list[int]) -> None:
    found = ddmin(range(count), needs(*needed))
    assert list(found.parts) == needed
    assert found.minimal


def test_the_example_of_the_paper() -> None:
    """Zeller and Hildebrandt 2002, table 2: of 8 changes, 1, 7 and 8 fail together; subsets may be unresolved."""
    tried = []

    def fails(parts: tuple[int, ...]) -> bool | None:
        tried.append(parts)
        if {1, 7, 8} <= set(parts):
            return True
        # Some changes depend on others, and cannot be tried without them.
        return None if {2, 3} & set(parts) and not {2, 3} <= set(parts) else False

    found = ddmin(range(1, 9), fails)
    assert found.parts == (1, 7, 8)
    assert found.minimal
    assert len(tried) == len(set(tried)) == found.tests_count
    assert tuple(range(1, 9)) not in tried
    assert () not in tried


def test_unknown_subset_is_kept_and_counted() -> None:
    found = ddmin(range(4), lambda parts: None if 0 not in parts else 3 in parts)
    assert set(found.parts) == {0, 3}
    assert not found.minimal  # It is not known whether 3 alone fails.
    assert found.unknown_count > 0


def test_the_smallest_so_far_is_kept_where_the_tests_end() -> None:
    left = [3]

    def fails(parts: tuple[int, ...]) -> bool:
        if not left[0]:
            raise ShrinkBudgetSpent
        left[0] -= 1
        return 5 in parts

    found = ddmin(range(8), fails)
    assert 5 in found.parts
    assert len(found.parts) < 8
    assert not found.minimal


def some(parts: Iterable[int]) -> frozenset[int]:
    return frozenset(parts)


COUNTS = st.integers(1, 12)
CASES = COUNTS.flatmap(lambda n: st.tuples(st.just(n), st.sets(st.frozensets(st.integers(0, n - 1)), min_size=1)))


@given(CASES)
def test_result_is_minimal(case: tuple[int, set[frozenset[int]]]) -> None:
    """Failures of any kind, also such that are not monotone: a set fails if its size and content say so."""
    count, causes = case
    tried: list[frozenset[int]] = []

    def fails(parts: tuple[int, ...]) -> bool:
        tried.append(some(parts))
        return len(parts) == count or any(set(cause) <= set(parts) and len(parts) % 2 for cause in causes)

    found = ddmin(range(count), fails)
    kept = some(found.parts)
    assert kept == some(range(count)) or fails(found.parts)
    assert found.minimal
    assert list(found.parts) == sorted(found.parts)
    for one in kept if len(kept) > 1 else ():
        assert not fails(tuple(sorted(kept - {one})))
    assert found.tests_count <= count * count + 3 * count  # The bound of the paper.


def test_a_failure_that_comes_and_goes_is_tried_again() -> None:
    said = iter([False, None, True])
    assert tried_again(lambda _: next(said), 3)((1,)) is True
    assert tried_again(lambda _: False, 3)((1,)) is False
    said = iter([False, None, False])
    assert tried_again(lambda _: next(said), 3)((1,)) is None

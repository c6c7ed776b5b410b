"""Shares: exact limits against published ones, and limits that hold after every trial."""

from __future__ import annotations

import math
import re
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from monkeyproof.reports.stats.proportions import (
    TRIALS_MAX,
    exact_share,
    log_evidence_above,
    more_all_good,
    more_until_decided,
    sequential_share,
    share_of,
    shows_at_least,
    shows_less,
)

PAGE = (Path(__file__).parents[2] / "docs" / "verdict.md").read_text(encoding="utf-8")


def counts(most: int = 400) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(1, most).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


def test_exact_limits_as_published() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 5.
    table = ((81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776))
    for successes, count, low, high in table:
        found = exact_share(successes, count, 0.95)
        assert found is not None
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
        assert not found.sequential


def test_limits_without_trials() -> None:
    assert exact_share(0, 0, 0.95) is None
    assert sequential_share(0, 0, 0.95) is None


def test_evidence_is_the_integral() -> None:
    for successes, failures, share in ((7, 2, 0.5), (30, 1, 0.9), (0, 4, 0.3), (12, 0, 0.8)):

        def likelihood(p: float, successes: int = successes, failures: int = failures) -> float:
            return p**successes * (1 - p) ** failures

        spread = integrate.quad(likelihood, share, 1)[0] / (1 - share) / likelihood(share)
        certain = share**-successes if failures == 0 else 0.0
        assert math.exp(log_evidence_above(successes, failures, share)) == pytest.approx((spread + certain) / 2)


@pytest.mark.parametrize(
    ("true_share", "share"), [(0.3, 0.5), (0.5, 0.5), (0.5, 0.9), (0.9, 0.9), (0.9, 0.99), (0.99, 0.99)]
)
def test_bet_is_at_most_fair(true_share: float, share: float) -> None:
    """The expected stake after n trials is at most what was put in: exactly, over all counts."""
    for count in (1, 7, 40):
        expected = sum(
            math.comb(count, good)
            * true_share**good
            * (1 - true_share) ** (count - good)
            * math.exp(log_evidence_above(good, count - good, share))
            for good in range(count + 1)
        )
        assert expected <= 1 + 1e-9


def test_forty_two_of_forty_two_pass_nine_in_ten() -> None:
    found = sequential_share(42, 42, 0.95)
    assert found is not None
    assert found.low >= 0.9
    assert found.high == 1.0
    assert found.sequential
    few = sequential_share(39, 39, 0.95)
    assert few is not None
    assert few.low < 0.9


@given(counts(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_sequential_limits(seen: tuple[int, int], confidence: float) -> None:
    successes, count = seen
    found = sequential_share(successes, count, confidence)
    turned = sequential_share(count - successes, count, confidence)
    exact = exact_share(successes, count, confidence)
    assert found is not None
    assert turned is not None
    assert exact is not None
    assert 0 <= found.low <= successes / count <= found.high <= 1
    assert found.low <= exact.low + 1e-9
    assert found.high >= exact.high - 1e-9
    assert found.low == pytest.approx(1 - turned.high, abs=1e-9)
    assert (found.low == 0) == (successes == 0)
    assert (found.high == 1) == (successes == count)


@given(counts(), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]), st.sampled_from([0.9, 0.95]), st.booleans())
def test_the_planner_and_the_limits_agree(
    seen: tuple[int, int], share: float, confidence: float, sequential: bool
) -> None:
    successes, count = seen
    found = share_of(successes, count, confidence, sequential=sequential)
    assert found is not None
    if min(abs(found.low - share), abs(found.high - share)) < 1e-9:
        return
    assert shows_at_least(successes, count, share, confidence, sequential=sequential) == (found.low >= share)
    assert shows_less(successes, count, share, confidence, sequential=sequential) == (found.high < share)


@given(counts(60), st.sampled_from([0.8, 0.9, 0.95]), st.booleans())
def test_number_of_more_trials_is_minimal(seen: tuple[int, int], share: float, sequential: bool) -> None:
    successes, count = seen
    more = more_all_good(successes, count, share, 0.95, sequential=sequential)
    assert more is not None

    def low(extra: int) -> float:
        found = share_of(successes + extra, count + extra, 0.95, sequential=sequential)
        assert found is not None
        return found.low

    assert low(more) >= share - 1e-9
    assert more == 1 or low(more - 1) < share


def test_more_trials_at_the_share_seen() -> None:
    # A share that is clearly good, one that is clearly bad, one at the border, and none seen.
    assert more_until_decided(10, 10, 10, 0.9, 0.95, sequential=False) == 26
    more = more_until_decided(3, 3, 6, 0.9, 0.95, sequential=True)
    assert more is not None
    assert shows_less(3 + round(more / 2), 6 + more, 0.9, 0.95, sequential=True)
    assert more_until_decided(90, 90, 100, 0.9, 0.95, sequential=True) is None
    assert more_until_decided(0, 0, 0, 0.9, 0.95, sequential=True) is None
    # What is undecided speaks for neither side: 8 to 10 of 10 stay on both sides for ever.
    assert more_until_decided(8, 10, 10, 0.9, 0.95, sequential=True) is None
    assert more_all_good(0, TRIALS_MAX, 0.9, 0.95, sequential=True) is None


@pytest.mark.parametrize("sequential", [False, True])
def test_planning_is_fast(sequential: bool) -> None:
    sequential_share(1, 2, 0.95)  # Imports scipy.
    taken_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        more_all_good(890, 1000, 0.9, 0.95, sequential=sequential)
        more_until_decided(890, 890, 1000, 0.9, 0.95, sequential=sequential)
        share_of(890, 1000, 0.95, sequential=sequential)
        taken_s.append(time.perf_counter() - began_s)
    assert min(taken_s) < 0.05


@cache
def boundaries(share: float, sequential: bool, most: int) -> tuple[np.ndarray, np.ndarray]:
    """For each number of trials the fewest successes that pass, and the most that fail."""
    pass_from, fail_to, good, bad = [], [], 0, 0
    for count in range(1, most + 1):
        while good <= count and not shows_at_least(good, count, share, 0.95, sequential=sequential):
            good += 1
        while bad <= count and shows_less(bad, count, share, 0.95, sequential=sequential):
            bad += 1
        pass_from.append(good)
        fail_to.append(bad - 1)
    return np.array(pass_from), np.array(fail_to)


def simulated(
    true_share: float, share: float, *, sequential: bool, most: int, campaigns: int
) -> tuple[float, float, float, float]:
    """Campaigns that end at their first decision: share that pass, that fail; median and p90 of their length."""
    pass_from, fail_to = boundaries(share, sequential, most)
    trials = np.random.default_rng(7).random((campaigns, most)) < true_share
    seen = np.cumsum(trials, axis=1, dtype=np.int16)
    passes, fails = seen >= pass_from, seen <= fail_to
    decided = passes | fails
    at = np.where(decided.any(axis=1), decided.argmax(axis=1), most - 1)
    each = np.arange(campaigns)
    median, p90 = np.quantile(at + 1, [0.5, 0.9], method="inverted_cdf")
    return float(passes[each, at].mean()), float(fails[each, at].mean()), float(median), float(p90)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95])
def test_error_rate_of_early_stopping(share: float) -> None:
    """At a true share of exactly what is asked for: the hardest case for either side."""
    passed, failed, _, _ = simulated(share, share, sequential=True, most=300, campaigns=20_000)
    assert 0 < passed <= 0.025
    assert 0 < failed <= 0.025
    # Limits for a fixed number of trials, evaluated after each of them, do not keep the promise.
    passed, failed, _, _ = simulated(share, share, sequential=False, most=300, campaigns=20_000)
    assert passed > 0.05
    assert failed > 0.05


def rows(heading: str) -> list[list[str]]:
    """The cells of the table of the page that begins with this heading."""
    table = PAGE.split(heading, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_trials_needed_as_documented() -> None:
    table = rows("| share | confidence |")
    assert len(table) == 8
    for share, confidence, fixed, auto in table:
        for sequential, documented in ((False, fixed), (True, auto)):
            assert more_all_good(0, 0, float(share), float(confidence), sequential=sequential) == int(documented)


def test_error_rates_as_documented() -> None:
    for (_, wrong_pass, wrong_fail), sequential in zip(rows("| limits, evaluated"), (False, True), strict=True):
        passed, failed, _, _ = simulated(0.9, 0.9, sequential=sequential, most=300, campaigns=20_000)
        assert (wrong_pass, wrong_fail) == (f"{100 * passed:.1f} %", f"{100 * failed:.1f} %")


def test_lengths_of_campaigns_as_documented() -> None:
    table = rows("| true share |")
    assert [float(row[0]) for row in table] == [0.99, 0.95, 0.8, 0.5]
    for true_share, half, most in table:
        found = simulated(float(true_share), 0.9, sequential=True, most=1000, campaigns=4000)
        assert found[2:] == (float(half), float(most))


def test_three_trials_as_documented() -> None:
    found = exact_share(3, 3, 0.95)
    assert found is not None
    assert re.search(r"3 of 3 shows ([\d.]+) %", PAGE)[1] == f"{100 * found.low:.1f}"  # type: ignore[index]
    assert f"{100 * 0.3**3:.1f} %" in PAGE

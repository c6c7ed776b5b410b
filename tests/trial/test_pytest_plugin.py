from __future__ import annotations

from pathlib import Path

import pytest

from monkeyproof.pytest_plugin import Trial
from monkeyproof.types import Interval, Outcome, Recovery, TrialResult

pytest_plugins = ["pytester"]


def trial(outcome: Outcome, ttr: Interval | None = None) -> Trial:
    recovery = Recovery(outcome, "a reason", ttr=ttr)
    return Trial(TrialResult("e", "t", "none", 1, 0, "f", "x", "2026", recovery), Path("f"))


@pytest.mark.parametrize(
    ("outcome", "ttr", "within_s", "expected"),
    [
        (Outcome.ABSORBED, None, 0.1, True),
        (Outcome.HEALED, Interval(1.0, 2.0), 2.0, True),
        # The interval's upper end decides: doubt never flatters.
        (Outcome.HEALED, Interval(1.0, 2.0), 1.9, False),
        (Outcome.SELF_RECOVERED, Interval(1.0, 2.0), 5.0, True),
        (Outcome.FAULT_REMOVED, None, 1000.0, False),
        (Outcome.NOT_RECOVERED, None, 1000.0, False),
    ],
)
def test_recovered_within(outcome: Outcome, ttr: Interval | None, within_s: float, expected: bool) -> None:
    assert trial(outcome, ttr).recovered_within_s(within_s) is expected


def test_an_invalid_trial_fails_the_assertion() -> None:
    with pytest.raises(pytest.fail.Exception, match="could not tell: a reason"):
        trial(Outcome.INVALID).recovered_within_s(10)


def test_failing_assertion_explains_itself() -> None:
    words = repr(trial(Outcome.NOT_RECOVERED))
    assert "not_recovered" in words
    assert "a reason" in words


def test_plugin_is_installed_and_names_a_missing_target_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_gate(chaos):\n    chaos.run('replica-kill')\n")
    result = pytester.runpytest_subprocess("-p", "no:locust", "--chaos-target", "missing.yaml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*missing.yaml: cannot be read*"])


def test_fixture_and_options_are_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-p", "no:locust", "--help")
    result.stdout.fnmatch_lines(["*--chaos-target*", "*--chaos-healer*", "*--chaos-seed*", "*--chaos-out*"])

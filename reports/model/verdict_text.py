"""The numbers behind a verdict in words: phrases of the sentence that gives its reason."""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.config.target_file import Limit, Slo
from monkeyproof.reports.stats.survival import in_time
from monkeyproof.types import TrialResult


def wrong_answers(over: Sequence[TrialResult], count: int, slo: Slo) -> str:
    assert slo.wrong_answers is not None
    most = max(trial.recovery.wrong_count for trial in over)
    words = f"{len(over)} of {trials_words(count)} served too many wrong answers, up to {most}"
    return f"{words} in one trial; {allowed(slo.wrong_answers)}"


def allowed(limit: Limit) -> str:
    if not limit.at_most:
        return "none is allowed"
    return f"at most {limit.at_most} {'is' if limit.at_most == 1 else 'are'} allowed"


def trials_words(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


def undecided(valid: Sequence[TrialResult], within_s: float) -> str:
    unknown = [trial.recovery for trial in valid if in_time(trial.recovery, within_s) is None]
    blurred = sum(recovery.outcome.under_fault for recovery in unknown)
    kinds = {
        "not watched for so long under the fault": len(unknown) - blurred,
        "recovered around the deadline": blurred,
    }
    found = [f"{count} {words}" for words, count in kinds.items() if count]
    return f" (not known: {', '.join(found)})" if found else ""


def more_needed(more: int | None, decided: int | None) -> str:
    first = "no number of trials up to 10,000 would pass" if more is None else f"{more} more in time would pass"
    if decided is None:
        return f"{first}; at the share seen, 10,000 more would not decide"
    return first if decided == more else f"{first}; at the share seen, about {decided} more would decide"


def percent(value: float, beside: float | None = None) -> str:
    """``90.3 %``: with enough digits to show on which side of ``beside`` it is."""
    if beside is None:
        return f"{100 * value:.10g} %"
    for digits in range(1, 9):
        shown = round(100 * value, digits)
        if (shown >= 100 * beside) == (value >= beside):
            break
    return f"{shown:.{digits}f} %"

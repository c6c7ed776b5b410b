"""The conditions that end a trial at once (``abort_if`` in the target file), decided from outside the trial.

Every condition fails closed: without data (no readings, no answer, no number) it holds.
"""

from __future__ import annotations

import json
import math
from typing import Protocol

import numpy as np

from monkeyproof.config.limits import BUDGET_DAYS, HEALTHY_STATUS, AbortIf, public_url
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.types import Json

DAY_S = 86400.0
ANSWER_WITHIN_S = 2.0
MAX_ANSWER_BYTES = 1024 * 1024


def good_share(schedule: ProbeSchedule | None, from_s: float, until_s: float, lag_s: float) -> float | None:
    """Share of good readings among those due in ``[from_s, until_s]``; unknown ones are not good.

    A slot without a row may still be in flight; one that should have its row since (``lag_s``) counts as not good.

    Returns:
        None if nothing is known of any of them.
    """
    if schedule is None:
        return None
    due = (schedule.scheduled_s >= from_s) & (schedule.scheduled_s <= until_s)
    counted = due & (schedule.has_row | (schedule.scheduled_s < until_s - lag_s))
    total = int(counted.sum()) + _never_written(schedule, from_s, until_s, lag_s)
    return float((schedule.is_good & counted).sum()) / total if total else None


def bad_s(schedule: ProbeSchedule | None, until_s: float, lag_s: float) -> float:
    """For how many seconds users got no good answer; each reading counts for the time until the next one."""
    if schedule is None:
        return 0.0
    over = schedule.has_row | (schedule.scheduled_s < until_s - lag_s)
    count = int((over & ~schedule.is_good).sum()) + _never_written(schedule, -math.inf, until_s, lag_s)
    return count * schedule.period_s


def _never_written(schedule: ProbeSchedule, from_s: float, until_s: float, lag_s: float) -> int:
    """Slots after the last row, of which there should be rows by now: the prober hangs, or has ended."""
    begin_s = max(from_s, float(schedule.scheduled_s[-1]) + schedule.period_s)
    return max(0, math.floor((until_s - lag_s - begin_s) / schedule.period_s + 1e-9))


class Condition(Protocol):
    """One entry of ``abort_if``."""

    def why(self, schedule: ProbeSchedule | None, now_s: float) -> str:
        """Why the trial has to end, now; "" if it may go on. ``slots``: the readings so far."""


class SliBelow:
    """The share of good readings over the last ``for_s``, once so much time has passed."""

    def __init__(self, least: float, for_s: float, from_s: float, lag_s: float) -> None:
        self._least, self._for_s, self._from_s, self._lag_s = least, for_s, from_s, lag_s

    def why(self, schedule: ProbeSchedule | None, now_s: float) -> str:
        begin_s = now_s - self._for_s
        if begin_s < self._from_s:
            return ""
        share = good_share(schedule, begin_s, now_s, self._lag_s)
        if share is None:
            return f"sli_below: no readings in the last {self._for_s:g} s"
        if share < self._least:
            return (
                f"sli_below: {share:.1%} of the readings of the last {self._for_s:g} s were good; "
                f"at least {self._least:.1%} are asked for"
            )
        return ""


class ErrorBudgetSpent:
    """Time without good answers, over the whole campaign, as a share of the error budget of so many days."""

    def __init__(
        self, most: float, days: float, objective: float, before_s: float, from_s: float, lag_s: float
    ) -> None:
        self._most, self._days, self._from_s, self._lag_s = most, days, from_s, lag_s
        self._budget_s = (1.0 - objective) * days * DAY_S
        self._before_s = before_s

    def why(self, schedule: ProbeSchedule | None, now_s: float) -> str:
        newest_s = float(schedule.scheduled_s[-1]) if schedule is not None else self._from_s
        if now_s - newest_s > self._lag_s + ANSWER_WITHIN_S:
            return f"error_budget_spent: no readings for {now_s - newest_s:.1f} s"
        spent_s = self._before_s + bad_s(schedule, now_s, self._lag_s)
        if spent_s > self._most * self._budget_s:
            return (
                f"error_budget_spent: {spent_s:.1f} s without good answers in this campaign are "
                f"{spent_s / self._budget_s:.2%} of the error budget of {self._days:g} days "
                f"({self._budget_s:.0f} s); at most {self._most:.2%} may be spent"
            )
        return ""


def why_unhealthy(condition: AbortIf, status: int) -> str:
    """Why a health URL's answer ends the trial; "" if it does not."""
    wanted = condition.status or HEALTHY_STATUS
    return (
        ""
        if status == wanted
        else f"health_url: {public_url(str(condition.health_url))} answers {status}, not {wanted}"
    )


def why_metric(condition: AbortIf, status: int, body: bytes) -> str:
    """Why a Prometheus server's answer to an instant query ends the trial; "" if every series is within bounds."""
    where = f"prometheus: {condition.query!r} at {public_url(str(condition.prometheus))}"
    try:
        answer = json.loads(body)
        if status != 200 or answer["status"] != "success":
            return f"{where}: answers {status}, {' '.join(str(answer.get('error', 'no success')).split())[:200]}"
        values = _values(answer["data"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return f"{where}: answers {status}, and not as Prometheus does"
    if not values:
        return f"{where}: no data"
    if not np.isfinite(values).all():
        return f"{where}: not a number"
    if condition.above is not None and max(values) > condition.above:
        return f"{where}: {max(values):g} is above {condition.above:g}"
    if condition.below is not None and min(values) < condition.below:
        return f"{where}: {min(values):g} is below {condition.below:g}"
    return ""


def _values(data: Json) -> list[float]:
    """The values of a scalar, or of each series of a vector."""
    if data["resultType"] == "scalar":
        return [float(data["result"][1])]
    if data["resultType"] != "vector":
        raise ValueError(f"an instant query gives no {data['resultType']}")
    return [float(series["value"][1]) for series in data["result"]]


def readings_conditions(
    conditions: tuple[AbortIf, ...], *, objective: float, before_s: float, from_s: float, lag_s: float
) -> list[Condition]:
    """The conditions that the prober's readings decide.

    Args:
        before_s: time without good answers in earlier trials of the campaign.
        from_s: since when the readings of this trial count.
        lag_s: how late a reading may be written.
    """
    found: list[Condition] = []
    for one in conditions:
        if one.sli_below is not None and one.for_s is not None:
            found.append(SliBelow(one.sli_below, one.for_s, from_s, lag_s))
        elif one.error_budget_spent is not None:
            days = one.of_days or BUDGET_DAYS
            found.append(ErrorBudgetSpent(one.error_budget_spent, days, objective, before_s, from_s, lag_s))
    return found

"""Runs a randomised fault schedule: injects each fault when it is due, and reverts it when its time is over."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from monkeyproof.config.user_files import problem_words
from monkeyproof.errors import NotReverted, UsageError
from monkeyproof.injection.arguments import check_arguments
from monkeyproof.injection.fault_registry import find
from monkeyproof.injection.inject import Context, current, revert, revert_fault
from monkeyproof.injection.schedule_plan import ScheduledFault
from monkeyproof.record.history import Kind
from monkeyproof.types import Json

__all__ = ["run_schedule"]

POLL_S = 0.1
PROVEN_WITHIN_S = 5.0
"""Without this bound, one fault that cannot be proven would keep all others from their turn."""
_FAULTS = TypeAdapter(tuple[ScheduledFault, ...])


def run_schedule(faults: list[dict[str, Json]]) -> dict[str, Json]:
    """Inject each fault ``start_s`` after the action begins, and revert it ``duration_s`` later.

    The schedule goes on where a fault does not come about: the history records a fault that was refused, or that
    gave no evidence while it was wanted and within 5 s (it is reverted at once), and the next one follows. Faults
    are injected one after another, so one that is slow to prove delays the next. The action ends when none of its
    faults is left; sooner if its effect cannot be judged any more, because an observer died.

    Returns:
        How many faults were ``injected``, ``refused`` and ``unproven``.

    Raises:
        UsageError: ``faults`` is not such a list, or names a fault that there is not.
        NotReverted: a fault could not be reverted; nothing more is injected.
    """
    context = current()
    try:
        planned = sorted(_FAULTS.validate_python(faults), key=lambda one: one.start_s)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"faults: {'.'.join(map(str, problem['loc']))}: {problem_words(problem)}") from None
    for one in planned:
        check_arguments(find(one.fault), one.arguments)
    run = _ScheduleRun(context)
    if context.planned is not None:
        for one in planned:
            context.active_faults.clear()  # A plan knows no times, so each is checked against the limits alone.
            run.begin(one)
        return run.counts
    context.history.event(Kind.PHASE_STARTED, "storm")
    why = "it was interrupted"
    try:
        why = run.until_done(planned)
    finally:
        context.history.event(Kind.PHASE_ENDED, "storm", why=why)
    return run.counts


@dataclass
class _ScheduleRun:
    """One run of a schedule, with the faults that it holds at this moment."""

    context: Context
    counts: dict[str, Json] = field(default_factory=lambda: {"injected": 0, "refused": 0, "unproven": 0})
    ends_s: dict[str, float] = field(default_factory=dict)
    """When each held fault has to end, by its id; in seconds after the start of the schedule."""

    def until_done(self, planned: Sequence[ScheduledFault]) -> str:
        """Inject and revert until nothing is left; returns why it ended."""
        clock = self.context.clock
        begun_s, waiting = clock.monotonic_s(), list(planned)
        while waiting or self.ends_s:
            now_s = clock.monotonic_s() - begun_s
            for fault_id in [one for one, end_s in self.ends_s.items() if end_s <= now_s]:
                del self.ends_s[fault_id]
                revert_fault(fault_id)
            if why := self.context.why_blind():
                revert()
                return why
            if waiting and waiting[0].start_s <= now_s:
                one = waiting.pop(0)
                if one.end_s <= now_s:
                    self._refused(one, "its time was over before it could begin")
                else:
                    self.begin(one, min(one.end_s - now_s, PROVEN_WITHIN_S))
                continue
            due_s = min([*self.ends_s.values(), *(one.start_s for one in waiting[:1])], default=now_s)
            clock.sleep_s(min(POLL_S, max(0.0, due_s - (clock.monotonic_s() - begun_s))))
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def begin(self, one: ScheduledFault, within_s: float = math.inf) -> None:
        """Inject one fault, if it can be proven in time. Until it is, no other can begin or end."""
        before = self.context.faults_count
        try:
            with self._for(one.seed, within_s):
                found = find(one.fault).function(**one.arguments)
        except NotReverted:
            raise
        except Exception as error:  # Whatever a fault raises, the schedule goes on.
            if self.context.planned is not None:
                self.context.limit_checks.append(f"{one.fault}: {error}")
            elif self.context.faults_count == before:
                self._refused(one, str(error))
            else:  # Its own events tell of it: it was intended, not proven, and reverted.
                self.counts["unproven"] += 1
        else:
            self.counts["injected"] += 1
            if any(held.id == found.get("id") for held in self.context.undo.open_faults()):
                self.ends_s[found["id"]] = one.end_s

    def _refused(self, one: ScheduledFault, why: str) -> None:
        self.counts["refused"] += 1
        self.context.history.event(
            Kind.FAULT_REFUSED, one.fault, id="", fault=one.fault, parameters=dict(one.arguments), why=why
        )

    @contextlib.contextmanager
    def _for(self, seed: int, within_s: float) -> Iterator[None]:
        before = self.context.seed, self.context.prove_within_s
        self.context.seed, self.context.prove_within_s = seed, within_s
        try:
            yield
        finally:
            self.context.seed, self.context.prove_within_s = before

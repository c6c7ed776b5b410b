"""Faults that depend on an event: a second fault begins, for instance, when a healer acts on the first.

A held fault lasts until it is reverted, so two in a row in a method are in force at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from monkeyproof.errors import UsageError
from monkeyproof.faults.support.checks import check_number
from monkeyproof.injection import fault_registry
from monkeyproof.injection.inject import Context, current
from monkeyproof.record.history import Kind, events_in
from monkeyproof.types import Json

__all__ = ["when_seen"]

_POLL_S = 0.05


def when_seen(
    event: str, fault: str, arguments: dict[str, Json], within_s: float, subject: str = ""
) -> dict[str, Json]:
    """Wait until the trial's history has an event, and inject a fault then; without the event, none.

    Args:
        event: a kind of event, such as ``healer.acting``; events before this step count.
        fault: its name, such as ``network.fail_requests``.
        arguments: the arguments of the fault.
        within_s: how long to wait. Without the event, the trial is one of the faults before it.
        subject: what the event has to be about; "" for anything.

    Raises:
        UsageError: there is no such kind of event, or no such fault.
        Refusal: as the fault itself raises it.
    """
    context = current()
    kinds = {kind.value: kind for kind in Kind}
    if event not in kinds:
        raise UsageError(f"event: {event!r} is no kind of event; there are {', '.join(kinds)}")
    check_number("within_s", within_s)
    if within_s <= 0:
        raise UsageError(f"within_s: {within_s:g} is not above 0")
    second = fault_registry.find(fault)
    if context.planned is None:
        seen = _await(context, kinds[event], subject, within_s)
        if not seen:
            return {"fault": fault, "injected": False, "why": f"no {event} within {within_s:g} s"}
    found: Mapping[str, Json] = second.function(**arguments)
    return {"injected": True, **found}


def _await(context: Context, kind: Kind, subject: str, within_s: float) -> bool:
    deadline_s = context.clock.monotonic_s() + within_s
    context.history.event(Kind.PHASE_STARTED, "await")
    seen, why = False, f"{kind} was not seen within {within_s:g} s, so the next fault was not injected"
    while not seen:
        seen = any(one.kind is kind and subject in ("", one.subject) for one in events_in(context.folder))
        if seen:
            why = f"{kind} was seen"
        elif blind := context.why_blind():
            why = f"{blind}, so the next fault was not injected"
            break
        elif context.clock.monotonic_s() >= deadline_s:
            break
        else:
            context.clock.sleep_s(_POLL_S)
    context.history.event(Kind.PHASE_ENDED, "await", why=why)
    return seen

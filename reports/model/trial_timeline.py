"""The timeline of a trial, from its events: faults, the healer's steps, phases and absences of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from monkeyproof.record.history import Event, History, Kind
from monkeyproof.types import Json


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """One fault, from intent to revert. Times are seconds since the trial began."""

    id: str
    name: str
    subject: str
    held: bool
    intended_s: float
    effective_s: float | None = None
    reverted_s: float | None = None
    evidence: str = ""
    trouble: str = ""
    """Why it was not proven or not reverted; empty if all went well."""
    parameters: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HealerStep:
    """One step of the healer; an action lasts until ``end_s``."""

    kind: str
    """detected, diagnosed, action, resolved or escalated."""
    start_s: float
    end_s: float | None
    """None: an action of which no end was recorded."""
    label: str
    """A few words."""
    text: str
    """The healer's own words."""
    ok: bool | None = None
    """Of an action."""


@dataclass(frozen=True, slots=True)
class TimeSpan:
    name: str
    start_s: float
    end_s: float | None


def faults(history: History) -> tuple[FaultSpan, ...]:
    """The faults of a trial, in the order of their intent."""
    found: dict[str, FaultSpan] = {}
    for event in history.events:
        fault_id = str(event.data.get("id", ""))
        if event.kind is Kind.FAULT_INTENDED:
            found[fault_id] = FaultSpan(
                id=fault_id,
                name=str(event.data.get("fault", "")),
                subject=event.subject,
                held=bool(event.data.get("held", True)),
                intended_s=event.t_s,
                parameters=_mapping(event.data.get("parameters")),
            )
        elif fault_id in found:
            found[fault_id] = _continued(found[fault_id], event)
    return tuple(found.values())


def _continued(fault: FaultSpan, event: Event) -> FaultSpan:
    match event.kind:
        case Kind.FAULT_EFFECTIVE:
            # Reports print the subject before it.
            summary = str(event.data.get("summary", "")).removeprefix(f"{fault.subject}: ")
            return replace(fault, effective_s=event.t_s, evidence=summary)
        case Kind.FAULT_INJECTED:
            return replace(fault, trouble="unproven: nothing names evidence that it took effect")
        case Kind.FAULT_REVERTED if fault.reverted_s is None:
            return replace(fault, reverted_s=event.t_s)
        case Kind.FAULT_UNPROVEN:
            return replace(fault, trouble=f"not proven: {event.data.get('why', '')}")
        case Kind.FAULT_NOT_REVERTED:
            return replace(fault, trouble=f"not reverted: {event.data.get('why', '')}")
        case _:
            return fault


def steps(history: History) -> tuple[HealerStep, ...]:
    """What the healer did, in order. An action is joined with its end, by its remedy."""
    found: list[HealerStep] = []
    ends = list(history.of_kind(Kind.HEALER_ACTED))
    for event in history.events:
        summary = str(event.data.get("summary", ""))
        match event.kind:
            case Kind.HEALER_DETECTED:
                label = _label(event, "signal")
                found.append(HealerStep("detected", event.t_s, event.t_s, label, summary or _threshold(event)))
            case Kind.HEALER_DIAGNOSED:
                found.append(HealerStep("diagnosed", event.t_s, event.t_s, _label(event, "cause"), summary))
            case Kind.HEALER_ACTING:
                end = next((end for end in ends if _ends(end, event)), None)
                if end is not None:
                    ends.remove(end)
                    summary = str(end.data.get("summary", "")) or summary
                found.append(_action(event, end, summary))
            case Kind.HEALER_RESOLVED | Kind.HEALER_ESCALATED:
                kind = "resolved" if event.kind is Kind.HEALER_RESOLVED else "escalated"
                found.append(HealerStep(kind, event.t_s, event.t_s, "", summary))
            case _:
                pass
    found += [_action(end, end, str(end.data.get("summary", ""))) for end in ends]
    return tuple(sorted(found, key=lambda step: step.start_s))


def absences(history: History) -> tuple[TimeSpan, ...]:
    """When the service was absent: its connections ended, and it refused new ones."""
    found: list[TimeSpan] = []
    for event in history.of_kind(Kind.SERVICE_GONE, Kind.SERVICE_REACHABLE):
        if event.kind is Kind.SERVICE_GONE:
            found.append(TimeSpan(str(event.data.get("how", "gone")), event.t_s, None))
        elif found and found[-1].end_s is None:
            found[-1] = replace(found[-1], end_s=event.t_s)
    return tuple(found)


def phases(history: History) -> tuple[TimeSpan, ...]:
    """The phases of a trial. One without an end lasts until the next begins."""
    found: list[TimeSpan] = []
    for event in history.of_kind(Kind.PHASE_STARTED, Kind.PHASE_ENDED):
        if event.kind is Kind.PHASE_STARTED:
            if found and found[-1].end_s is None:
                found[-1] = replace(found[-1], end_s=event.t_s)
            found.append(TimeSpan(event.subject, event.t_s, None))
        elif found and found[-1].name == event.subject:
            found[-1] = replace(found[-1], end_s=event.t_s)
    return tuple(found)


def troubles(history: History) -> tuple[str, ...]:
    """What went wrong with the trial itself. (The trouble of a fault is in its ``FaultSpan``.)"""
    names = {Kind.TRIAL_ABORTED: "The trial was aborted", Kind.BASELINE_MISSED: "The baseline was missed"}
    return tuple(f"{names[event.kind]}: {event.data.get('why', '')}" for event in history.of_kind(*names))


def _action(began: Event, end: Event | None, summary: str) -> HealerStep:
    ok = bool(end.data.get("ok")) if end is not None else None
    return HealerStep("action", began.t_s, end.t_s if end else None, _label(began, "remedy"), summary, ok)


def _ends(end: Event, began: Event) -> bool:
    keys = [(event.source, event.subject, event.data.get("remedy")) for event in (began, end)]
    return keys[0] == keys[1] and end.t_s >= began.t_s


def _label(event: Event, key: str) -> str:
    """``replica slow: replica-2``."""
    what = str(event.data.get(key, "") or "").replace("_", " ")
    return ": ".join(part for part in (what, event.subject) if part)


def _threshold(event: Event) -> str:
    return f"{event.data.get('value', '?')} against a threshold of {event.data.get('threshold', '?')}"


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}

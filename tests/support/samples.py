"""Makes realistic campaigns of every outcome: histories written by the kernel's own writers, and what was seen.

The truth of each trial is chosen first; readings, events and the expected numbers follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.record.history import READINGS_FILE, TRIAL_FILE, HistoryWriter, Kind, write_json
from monkeyproof.record.readings import Reading, ReadingsWriter, SignalState
from monkeyproof.types import Campaign, Interval, Outcome, Recovery, TrialResult

RATE_PER_S = 50.0
T0_S = 2.6
HORIZON_S = 15.0
AFTER_REVERT_S = 5.0
SLO = {
    "latency_ms": 250.0,
    "objective": 0.99,
    "stable_for_s": 2.0,
    "recovery": {"within_s": 10.0, "share": 0.9, "confidence": 0.95},
}


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    subject: str
    evidence: str
    held: bool = True
    proof_delay_s: float = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """The truth of one trial. Instants are seconds since t0."""

    experiment: str
    title: str
    arm: str
    outcome: Outcome
    faults: Sequence[Fault]
    trouble: str = "wrong"
    """What bad answers are: wrong, late, refused or fallback (wrong, and said to be degraded)."""
    bad_share: float = 0.4
    impact_s: float = 0.4
    recovered_s: float | None = None
    steps: Sequence[tuple[float, Kind, str, Mapping[str, object]]] = ()
    healed_by: tuple[str, ...] = ()
    expected: tuple[Outcome, ...] = ()
    escalations: tuple[str, ...] = ()
    versions: Sequence[tuple[float, str]] = ((-10.0, "1"),)
    """(from, version that answers from then on)."""
    not_reverted: tuple[str, ...] = ()
    reason: str = ""

    @property
    def hold_s(self) -> float:
        return HORIZON_S if not self.outcome.under_fault else (self.recovered_s or 1.0) + 2.1


def detected(
    at_s: float, signal: str, subject: str, summary: str
) -> tuple[float, Kind, str, Mapping[str, object]]:
    return at_s, Kind.HEALER_DETECTED, subject, {"signal": signal, "summary": summary}


def diagnosed(
    at_s: float, cause: str, subject: str, summary: str
) -> tuple[float, Kind, str, Mapping[str, object]]:
    return at_s, Kind.HEALER_DIAGNOSED, subject, {"cause": cause, "summary": summary}


def action(
    at_s: float, took_s: float, remedy: str, subject: str, summary: str, *, ok: bool = True
) -> list[tuple[float, Kind, str, Mapping[str, object]]]:
    return [
        (at_s, Kind.HEALER_ACTING, subject, {"remedy": remedy, "summary": summary}),
        (at_s + took_s, Kind.HEALER_ACTED, subject, {"remedy": remedy, "ok": ok, "summary": summary}),
    ]


def write_trial(folder: Path, plan: Plan, seed: int, index: int) -> TrialResult:
    """Write one trial's history into ``folder/<name>`` and return what reports are told of it."""
    name = f"{plan.experiment}-{plan.arm}-{seed}"
    place = folder / name
    place.mkdir(parents=True)
    rng = np.random.default_rng([seed, index, len(plan.experiment)])
    write_json(place / TRIAL_FILE, {"version": 1, "seed": seed, "experiment": plan.experiment, "arm": plan.arm})
    reverted_s = _write_events(place, plan)
    end_s = reverted_s + AFTER_REVERT_S
    readings = _readings(plan, rng, end_s)
    writer = ReadingsWriter(place / READINGS_FILE)
    for start in range(0, len(readings), 13):
        writer.write(readings[start : start + 13])
    writer.close()
    return _result(plan, seed, index, name, readings, reverted_s, end_s)


def _write_events(place: Path, plan: Plan) -> float:
    anchor = Anchor(0.0, "2026-02-03T04:05:06.000+00:00")
    worker = HistoryWriter(place, anchor, "worker", ManualClock())
    worker.event(Kind.TRIAL_STARTED, t_s=0.0, title=plan.title)
    worker.event(Kind.PHASE_STARTED, "baseline", t_s=0.9)
    worker.event(Kind.BASELINE_MET, t_s=2.45, good_share=1.0, window_s=1.5)
    worker.event(Kind.PHASE_ENDED, "baseline", t_s=2.45)
    worker.event(Kind.PHASE_STARTED, "inject", t_s=2.5)
    at_s = T0_S
    for number, fault in enumerate(plan.faults):
        data = {"id": f"f{number}", "fault": fault.name}
        worker.event(Kind.FAULT_INTENDED, fault.subject, t_s=at_s, parameters={}, held=fault.held, **data)
        at_s += fault.proof_delay_s
        if plan.outcome is Outcome.UNPROVEN:
            worker.event(Kind.FAULT_INJECTED, fault.subject, t_s=at_s, **data)
        elif plan.outcome is Outcome.INVALID:
            worker.event(Kind.FAULT_UNPROVEN, fault.subject, t_s=at_s, why="no evidence within 5 s", **data)
        else:
            worker.event(
                Kind.FAULT_EFFECTIVE, fault.subject, t_s=at_s, summary=fault.evidence, evidence={}, **data
            )
    worker.event(Kind.PHASE_ENDED, "inject", t_s=at_s)
    worker.event(Kind.PHASE_STARTED, "hold", t_s=at_s)
    reverted_s = T0_S + plan.hold_s
    worker.event(Kind.PHASE_ENDED, "hold", t_s=reverted_s - 0.05)
    worker.event(Kind.PHASE_STARTED, "revert", t_s=reverted_s - 0.05)
    for number, fault in enumerate(plan.faults):
        data = {"id": f"f{number}", "fault": fault.name}
        if plan.not_reverted:
            worker.event(Kind.FAULT_NOT_REVERTED, fault.subject, t_s=reverted_s, why=plan.not_reverted[0], **data)
        elif fault.held:
            worker.event(Kind.FAULT_REVERTED, fault.subject, t_s=reverted_s, summary="reverted", **data)
    worker.event(Kind.PHASE_ENDED, "revert", t_s=reverted_s)
    worker.event(Kind.PHASE_STARTED, "after_revert", t_s=reverted_s)
    worker.event(Kind.PHASE_ENDED, "after_revert", t_s=reverted_s + AFTER_REVERT_S)
    worker.event(Kind.TRIAL_ENDED, t_s=reverted_s + AFTER_REVERT_S, status="completed")
    worker.close()
    healer = HistoryWriter(place, anchor, plan.arm, ManualClock())
    if plan.arm != "none":
        healer.event(Kind.HEALER_READY, t_s=0.5)
    for at_s, kind, subject, said in plan.steps:
        healer.event(kind, subject, t_s=T0_S + at_s, **said)
    healer.close()
    return reverted_s


def _readings(plan: Plan, rng: np.random.Generator, end_s: float) -> list[Reading]:
    rows: list[Reading] = []
    for slot in range(int(end_s * RATE_PER_S)):
        scheduled_s = slot / RATE_PER_S
        since_s = scheduled_s - T0_S
        sent_s = scheduled_s + float(rng.exponential(0.0003))
        good_again_s = plan.recovered_s if plan.recovered_s is not None else np.inf
        hurt = plan.outcome is not Outcome.ABSORBED and plan.impact_s <= since_s < good_again_s
        first = hurt and since_s < plan.impact_s + 1 / RATE_PER_S
        last = hurt and since_s >= good_again_s - 1 / RATE_PER_S - 1e-6
        bad = first or last or (hurt and rng.random() < plan.bad_share)
        version = next(said for begins_s, said in reversed(plan.versions) if since_s >= begins_s)
        rows.append(_reading(plan, rng, slot, scheduled_s, sent_s, version, bad=bad))
    return rows


def _reading(
    plan: Plan, rng: np.random.Generator, slot: int, scheduled_s: float, sent_s: float, version: str, *, bad: bool
) -> Reading:
    took_s = 0.003 + float(rng.exponential(0.0015))
    fine = Reading(
        slot,
        scheduled_s,
        sent_s,
        sent_s + took_s,
        SignalState.GOOD,
        SignalState.GOOD,
        SignalState.GOOD,
        False,
        200,
        version,
    )
    if not bad:
        return fine
    match plan.trouble:
        case "late":
            return replace(fine, finished_s=sent_s + float(rng.uniform(0.5, 0.95)), fast=SignalState.BAD)
        case "refused":
            return replace(
                fine,
                available=SignalState.BAD,
                fast=SignalState.BAD,
                correct=SignalState.UNKNOWN,
                status=502,
                problem="status",
            )
        case "fallback":
            return replace(fine, correct=SignalState.BAD, degraded=True)
        case _:
            return replace(fine, correct=SignalState.BAD)


def _result(
    plan: Plan, seed: int, index: int, name: str, readings: list[Reading], reverted_s: float, end_s: float
) -> TrialResult:
    after = [row for row in readings if row.scheduled_s >= T0_S]
    bad = [row for row in after if row.good is SignalState.BAD]
    wrong = [row for row in after if row.correct is SignalState.BAD]
    recovered = None
    if plan.recovered_s is not None and bad:
        low_s = bad[-1].scheduled_s
        recovered = Interval(low_s, low_s + 1 / RATE_PER_S + 0.004)
    noticed_s = min((at_s for at_s, kind, _, _ in plan.steps if kind is Kind.HEALER_DETECTED), default=None)
    first_wrong_s = wrong[0].scheduled_s - T0_S if wrong else None
    healed = plan.outcome in (Outcome.HEALED, Outcome.SELF_RECOVERED)
    end_of_wrong_s = (recovered.high_s if recovered else end_s) - T0_S
    return TrialResult(
        experiment=plan.experiment,
        title=plan.title,
        arm=plan.arm,
        seed=seed,
        index=index,
        folder=name,
        target="embedded",
        started_utc="2026-02-03T04:05:06.000+00:00",
        recovery=Recovery(
            outcome=plan.outcome,
            reason=plan.reason or _reason(plan, recovered),
            t0_s=T0_S,
            effective_s=T0_S + sum(fault.proof_delay_s for fault in plan.faults),
            reverted_s=reverted_s if any(fault.held for fault in plan.faults) and not plan.not_reverted else None,
            end_s=end_s,
            impact_s=bad[0].scheduled_s if bad else None,
            recovered=recovered,
            ttr=recovered.since(T0_S) if recovered and healed else None,
            censored_at_s=plan.hold_s if plan.outcome in (Outcome.FAULT_REMOVED, Outcome.NOT_RECOVERED) else None,
            ttd_s=noticed_s,
            first_wrong_s=first_wrong_s,
            silent_s=max(0.0, (noticed_s or end_of_wrong_s) - first_wrong_s)
            if first_wrong_s is not None
            else None,
            readings_count=len(after),
            bad_count=len(bad),
            wrong_count=len(wrong),
            degraded_count=sum(row.degraded for row in after),
            resilience_loss_s=len(bad) / RATE_PER_S,
            lateness_p99_ms=1.4,
        ),
        faults=tuple(fault.name for fault in plan.faults),
        evidence=tuple(fault.evidence for fault in plan.faults),
        healed_by=plan.healed_by,
        detected=tuple(str(data["summary"]) for _, kind, _, data in plan.steps if kind is Kind.HEALER_DETECTED),
        escalations=plan.escalations,
        not_reverted=plan.not_reverted,
        expected=plan.expected,
        load={"requests": 412, "failures": len(bad) // 3, "requests_per_s": 19.8, "p50_ms": 4.0, "p99_ms": 31.5},
    )


def _reason(plan: Plan, recovered: Interval | None) -> str:
    if plan.outcome is Outcome.ABSORBED:
        return "none of 396 readings after the fault was bad"
    if plan.outcome is Outcome.INVALID:
        return "not proven to have taken effect: no evidence within 5 s"
    told = f"went bad {plan.impact_s:.2f} s after the fault began"
    if recovered is None:
        return f"{told}, and never again good for 2 s until watching ended"
    since = recovered.since(T0_S)
    told += f", good again from between {since.low_s:.2f} and {since.high_s:.2f} s"
    how = {
        Outcome.HEALED: f"after the healer's {plan.healed_by[0] if plan.healed_by else 'action'}",
        Outcome.SELF_RECOVERED: "no healer acted before",
    }
    return f"{told}, {how.get(plan.outcome, 'but only after the fault was reverted')}"


def campaign_of(trials: Sequence[TrialResult]) -> Campaign:
    return Campaign(
        name="five-experiments",
        started_utc="2026-02-03T04:05:06.000+00:00",
        duration_s=23.0 * len(trials),
        target="embedded",
        seed=1,
        slo=SLO,
        prober={"rate_per_s": RATE_PER_S, "timeout_ms": 1000.0},
        machine={"cores": 2, "memory_gb": 24.0, "kernel": "6.1.0", "python": "3.11.9"},
        versions={"monkeyproof": "0.1.0", "mlflow": "3.17.2", "chaostoolkit-lib": "1.44.0"},
        trials=tuple(trials),
    )

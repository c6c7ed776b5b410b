"""The values that travel between the rooms.

All are frozen; all times are seconds since the trial began (CLOCK_MONOTONIC), unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = Any  # What json.loads returns: str, float, int, bool, None, or lists and mappings of these.


class Outcome(StrEnum):
    """How a trial ended, as its users saw it."""

    ABSORBED = "absorbed"
    """The fault is proven and not one reading was bad."""
    HEALED = "healed"
    """Recovered while the fault was held, and a healer's action began before the recovery was proven."""
    SELF_RECOVERED = "self_recovered"
    """Recovered while the fault was held, with no healer's action before it."""
    FAULT_REMOVED = "fault_removed"
    """Recovered only after the revert: right-censored at the revert."""
    NOT_RECOVERED = "not_recovered"
    """Not recovered when the horizon ended: right-censored there."""
    INVALID = "invalid"
    """The fault was not proven, the baseline did not hold, or the readings do not suffice. Counts for nothing."""
    UNPROVEN = "unproven"
    """No evidence of the fault is named, so only observations are reported. Counts for nothing."""

    @property
    def counts(self) -> bool:
        """Whether the trial is a reliable statement about the target."""
        return self not in (Outcome.INVALID, Outcome.UNPROVEN)

    @property
    def under_fault(self) -> bool:
        """Whether the system was, or became, good while the fault was still there."""
        return self in (Outcome.ABSORBED, Outcome.HEALED, Outcome.SELF_RECOVERED)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Proof, read back from the target, that a fault took effect."""

    summary: str
    """One sentence for people: "replica-1: pid 4711 has ended"."""
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interval:
    """An instant known only to lie in ``(low_s, high_s]``."""

    low_s: float
    high_s: float

    @property
    def width_s(self) -> float:
        return self.high_s - self.low_s

    def since(self, origin_s: float) -> Interval:
        """The same instant, counted from ``origin_s``; never below zero."""
        return Interval(max(0.0, self.low_s - origin_s), max(0.0, self.high_s - origin_s))


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the users saw in one trial, computed from its readings and events alone."""

    outcome: Outcome
    reason: str
    """Why this outcome and no other, in one sentence."""
    t0_s: float | None = None
    """Start of the injecting call: the earliest moment at which the fault can have begun."""
    effective_s: float | None = None
    """When the evidence was read back. ``effective_s - t0_s`` is the width of the fault's beginning."""
    reverted_s: float | None = None
    """When the harness reverted the fault; None if there was nothing to revert."""
    end_s: float | None = None
    """When watching ended."""
    impact_s: float | None = None
    """Scheduled time of the first bad reading after t0: a hang is dated to when the question was due."""
    impact_seen_s: float | None = None
    """When the first bad reading was known to be bad: for a hang, a threshold later."""
    recovered: Interval | None = None
    """``(last bad, first good]`` of the sustained window that meets the objective, after the last relapse that was
    seen under the fault; wider where the outage was partial, so that good answers fell inside it too."""
    proven_s: float | None = None
    """When the sustained window that proves the recovery was over."""
    ttr: Interval | None = None
    """Time to recover under the fault, counted from t0. None if censored (or absorbed: nothing to recover)."""
    censored_at_s: float | None = None
    """Seconds after t0 up to which it is known that the system had not recovered under the fault."""
    ttd_s: float | None = None
    """Time to the healer's first detection, counted from t0."""
    first_wrong_s: float | None = None
    """Time to the first wrong answer, counted from t0."""
    silent_s: float | None = None
    """From the first wrong answer until a healer detected it (or until recovery, or the end of watching)."""
    readings_count: int = 0
    bad_count: int = 0
    wrong_count: int = 0
    degraded_count: int = 0
    unknown_count: int = 0
    relapses: int = 0
    """How often it went bad again, below the objective, after it had been good for a whole window."""
    resilience_loss_s: float = 0.0
    """Area between the objective and the good share, from t0 to the end: seconds of full outage it equals."""
    lateness_p99_ms: float = 0.0
    """The prober's own lateness: how far the clock behind these numbers can be off."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial, as reports see it."""

    experiment: str
    title: str
    arm: str
    seed: int
    index: int
    folder: str
    """Relative to the campaign's folder."""
    target: str
    started_utc: str
    recovery: Recovery
    faults: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    healed_by: tuple[str, ...] = ()
    """The healer's successful remedies that began before the recovery was proven, in order."""
    detected: tuple[str, ...] = ()
    """What the healer detected and diagnosed, in its own words."""
    escalations: tuple[str, ...] = ()
    not_reverted: tuple[str, ...] = ()
    expected: tuple[Outcome, ...] = ()
    """What the experiment's author expects for this arm; empty: no expectation."""
    load: Mapping[str, Json] = field(default_factory=dict)
    """Statistics of the background load: requests, failures, requests_per_s, p50_ms, p99_ms."""
    sham: bool = False
    """No fault was injected: every action of a healer is a false-positive remediation."""
    benign: bool = False
    """The fault should harm no user, by its author's statement."""
    false_heals: tuple[str, ...] = ()
    """Remedies that a healer began where there was nothing to heal: in a sham, or under a benign fault that indeed
    harmed no user."""
    aborted: str = ""
    """Why the trial ended early; empty if it did not."""
    storm: bool = False
    """A random schedule of faults: the trial shows only whether the target recovered after it."""

    @property
    def apart(self) -> bool:
        """Whether it shows nothing about recovery under a fault, so that figures of that leave it out."""
        return self.sham or self.storm

    @property
    def as_expected(self) -> bool | None:
        """None where nothing was expected."""
        return self.recovery.outcome in self.expected if self.expected else None


@dataclass(frozen=True, slots=True)
class Campaign:
    """Trials over experiments, seeds and arms: what a report is made of. ``results.json`` is this, as JSON."""

    name: str
    started_utc: str
    duration_s: float
    target: str
    seed: int
    slo: Mapping[str, Json]
    """The target's SLO, as its file says: latency_ms, objective, stable_for_s, recovery."""
    prober: Mapping[str, Json]
    """rate_per_s and timeout_ms: the resolution of the clock."""
    machine: Mapping[str, Json]
    """cores, memory_gb, kernel, python."""
    versions: Mapping[str, str]
    trials: tuple[TrialResult, ...] = ()
    plan: Mapping[str, Json] = field(default_factory=dict)
    """The plan: ``experiments``, ``arms``, ``trials_count`` (at most, of each experiment and arm),
    ``sequential`` (ends as soon as the verdict is decided), ``shams_count``, ``max_minutes``."""
    aborted: str = ""
    """Why it ended early (a signal, a refusal, a fault that was not reverted); empty if it did not."""
    calibration: Mapping[str, Json] = field(default_factory=dict)
    """The last result of ``monkeyproof calibrate`` on this machine; empty: never calibrated there."""
    version: int = 1
    """Of this format."""

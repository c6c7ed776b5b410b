"""What to do about a cause, as a table; and when, as a pure function of the case so far.

A case is one cause on one subject. Its remedies are tried in order, each once; a remedy that was done is given
time to show; what ends a case is that its signals are back in range. Actions are counted over all cases: a
healer that thrashes does harm, so beyond the limit it writes an incident instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from monkeyproof.healing.detect import Signal
from monkeyproof.healing.diagnose import Cause, Diagnosis


class Remedy(StrEnum):
    """Every action that the Elephant can take. The last three take back what others did."""

    DRAIN = "drain"
    RESTART = "restart"
    ROLL_BACK = "roll_back"
    SERVE_SNAPSHOT = "serve_snapshot"
    QUARANTINE_AND_RESTORE = "quarantine_and_restore"
    UNDRAIN = "undrain"
    SERVE_LIVE = "serve_live"
    END_QUARANTINE = "end_quarantine"


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about one cause."""

    remedies: tuple[Remedy, ...]
    """Tried in this order; a remedy named twice is tried again."""
    quiet: tuple[Signal, ...]
    """What must be back in range for the case to be over."""
    wait_s: float = 0.0
    """Left to the platform's own healing for so long."""
    verify_s: float = 4.0
    """How long a remedy may take to show."""
    advice: str = ""
    """What a person should do if all this does not help."""


R, S = Remedy, Signal
POLICY: Mapping[Cause, Rule] = {
    Cause.FEATURES_UNAVAILABLE: Rule(
        (R.SERVE_SNAPSHOT, R.SERVE_SNAPSHOT),
        (S.FALLBACK, S.CANARY_ACCURACY),
        advice="Look at the feature store and at the network between it and the replicas.",
    ),
    Cause.DATA_CORRUPTED: Rule(
        (R.QUARANTINE_AND_RESTORE, R.QUARANTINE_AND_RESTORE, R.SERVE_SNAPSHOT),
        (S.CANARY_ACCURACY,),
        advice="Look at the source of the records and at the quarantined batches; refill what was set aside.",
    ),
    Cause.MODEL_REGRESSED: Rule(
        (R.ROLL_BACK, R.ROLL_BACK),
        (S.CANARY_ACCURACY,),
        verify_s=6.0,
        advice="Point the champion alias to a version that is known to be good, by hand; if it is one already, "
        "see which replica does not follow it.",
    ),
    Cause.REPLICA_DEAD: Rule(
        (R.RESTART, R.RESTART, R.DRAIN),
        (S.REPLICA_DOWN,),
        wait_s=1.5,
        advice="Look at the replica's log: it does not come up.",
    ),
    Cause.REPLICA_SLOW: Rule(
        (R.DRAIN, R.RESTART),
        (S.REPLICA_SLOW, S.CANARY_LATENCY, S.CANARY_ERRORS),
        advice="Look at the replica's host and at the network between it and the front door.",
    ),
    Cause.BLIND: Rule(
        (), (S.TELEMETRY_LOST,), advice="Bring the telemetry back: until then the health of that part is unknown."
    ),
    Cause.UNKNOWN: Rule(
        (),
        (S.CANARY_ACCURACY, S.CANARY_ERRORS, S.CANARY_LATENCY),
        advice="Answers are wrong, missing or late, and no known cause fits. Start with what changed last.",
    ),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What keeps the Elephant from doing harm."""

    actions_per_minute: int = 8
    cool_down_s: float = 1.0
    """Between two actions of one case."""
    quiet_s: float = 1.5
    """How long signals must be back in range."""
    settle_s: float = 4.0
    """After an action, how long nothing that is seen counts as of an unknown cause."""


class State(StrEnum):
    """Where a case stands."""

    OPEN = "open"
    ACTING = "acting"
    VERIFYING = "verifying"
    ESCALATED = "escalated"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One remedy that was tried."""

    remedy: Remedy
    began_s: float
    ended_s: float
    ok: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Case:
    """One cause on one subject, from its diagnosis until its signals are quiet. ``next_case`` moves it on."""

    diagnosis: Diagnosis
    opened_s: float
    state: State = State.OPEN
    tried: tuple[Attempt, ...] = ()
    quiet_since_s: float | None = None

    @property
    def rule(self) -> Rule:
        return POLICY[self.diagnosis.cause]


@dataclass(frozen=True, slots=True)
class Act:
    """Do this now."""

    remedy: Remedy


@dataclass(frozen=True, slots=True)
class Escalate:
    """Call a person."""

    why: str


@dataclass(frozen=True, slots=True)
class Resolve:
    """The case is over."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do yet."""


Decision = Act | Escalate | Resolve | Wait


def observe(case: Case, out_of_range: frozenset[Signal] | None, now_s: float) -> Case:
    """Note whether the case's signals are quiet. None: it is not known what is in range, so nothing is quiet."""
    if out_of_range is None or out_of_range & set(case.rule.quiet):
        return replace(case, quiet_since_s=None)
    return case if case.quiet_since_s is not None else replace(case, quiet_since_s=now_s)


def decide(case: Case, actions_s: Sequence[float], now_s: float, limits: Limits) -> Decision:
    """What to do about a case now; ``actions_s`` are the times of all actions of all cases."""
    if case.state is State.ACTING:
        return Wait()
    done_s = case.tried[-1].ended_s if case.tried else case.opened_s
    if case.quiet_since_s is not None and now_s - max(case.quiet_since_s, done_s) >= limits.quiet_s:
        return Resolve()
    if case.state is State.ESCALATED or now_s - case.opened_s < case.rule.wait_s:
        return Wait()
    worked = bool(case.tried) and case.tried[-1].ok
    patience_s = case.rule.verify_s if worked else limits.cool_down_s
    if case.tried and (now_s - done_s < patience_s or (worked and case.quiet_since_s is not None)):
        return Wait()
    if case.quiet_since_s is not None and (case.rule.wait_s or case.tried):
        return Wait()  # It went away meanwhile: acting now could only disturb.
    if len(case.tried) >= len(case.rule.remedies):
        return Escalate(
            "no remedy is known for it" if not case.tried else "every remedy was tried, and it persists"
        )
    if sum(now_s - at_s < 60.0 for at_s in actions_s) >= limits.actions_per_minute:
        return Escalate(f"{limits.actions_per_minute} actions within a minute: more would be thrashing")
    return Act(case.rule.remedies[len(case.tried)])


@dataclass(frozen=True, slots=True)
class Mitigation:
    """Something that was done and has to be taken back once it is safe."""

    remedy: Remedy
    subject: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Lift:
    """How a mitigation is taken back: by what, and after how long a time of evidence that it is safe."""

    by: Remedy
    evidence_s: float


LIFTS: Mapping[Remedy, Lift] = {
    Remedy.DRAIN: Lift(Remedy.UNDRAIN, 2.0),
    Remedy.SERVE_SNAPSHOT: Lift(Remedy.SERVE_LIVE, 2.0),
    Remedy.QUARANTINE_AND_RESTORE: Lift(Remedy.END_QUARANTINE, 3.0),
}
RELAPSE_S = 10.0
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to leave mitigations in place: twice as long after each time that taking one back was too early."""

    lifted_s: Mapping[tuple[Remedy, str], float] = field(default_factory=dict)
    failures: Mapping[tuple[Remedy, str], int] = field(default_factory=dict)

    def lifted(self, remedy: Remedy, subject: str, now_s: float) -> Patience:
        return replace(self, lifted_s={**self.lifted_s, (remedy, subject): now_s})

    def needed_again(self, remedy: Remedy, subject: str, now_s: float) -> Patience:
        """The remedy is applied (again): soon after it was lifted means that lifting it was wrong."""
        key = (remedy, subject)
        relapsed = now_s - self.lifted_s.get(key, -RELAPSE_S) < RELAPSE_S
        return replace(self, failures={**self.failures, key: self.failures.get(key, 0) + 1 if relapsed else 0})

    def keep_s(self, mitigation: Mitigation) -> float:
        """How long the mitigation stays at least."""
        failures = self.failures.get((mitigation.remedy, mitigation.subject), 0)
        return min(LONGEST_WAIT_S, LIFTS[mitigation.remedy].evidence_s * 2.0**failures)

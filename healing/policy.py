"""Plan (the P of MAPE-K): what to do about a cause, as a table; and when, as a pure function of the case so far.

A case is one cause on one subject. The Elephant tries its remedies in order, and gives each time to show. A case
is over when its signals are back in range. Actions are counted over all cases: a healer that thrashes does
harm, so beyond the limit it writes an incident instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum

from monkeyproof.healing.detect import Signal
from monkeyproof.healing.diagnose import Cause, Diagnosis
from monkeyproof.healing.remedies import REMEDIES
from monkeyproof.healing.remedy import Remedy


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about one cause."""

    remedies: tuple[str, ...]
    """Names of remedies, tried in this order; a remedy named twice is tried again."""
    quiet: tuple[Signal, ...]
    """Signals that must be back in range for the case to be over."""
    wait_s: float = 0.0
    """For how long the platform's own healing has the first try."""
    verify_s: float = 4.0
    """How long a remedy may take to show."""
    advice: str = ""
    """What a person should do if no remedy helps."""


S = Signal
TABLE: Mapping[Cause, Rule] = {
    Cause.FEATURES_UNAVAILABLE: Rule(
        ("serve_snapshot", "serve_snapshot"),
        (S.FALLBACK, S.CANARY_ACCURACY),
        advice="Check the feature store and the network between it and the replicas.",
    ),
    Cause.DATA_CORRUPTED: Rule(
        ("quarantine_and_restore", "quarantine_and_restore", "serve_snapshot"),
        (S.CANARY_ACCURACY,),
        advice="Check the source of the records and the quarantined batches; refill what was set aside.",
    ),
    Cause.MODEL_REGRESSED: Rule(
        ("roll_back", "roll_back"),
        (S.CANARY_ACCURACY,),
        verify_s=6.0,
        advice="Point the champion alias to a version that is known to be good; if it is one already, "
        "see which replica does not follow it.",
    ),
    Cause.REPLICA_DEAD: Rule(
        ("restart", "restart", "drain"),
        (S.REPLICA_DOWN,),
        wait_s=1.5,
        advice="Check the replica's log: it does not come up.",
    ),
    Cause.REPLICA_SLOW: Rule(
        ("drain", "restart"),
        (S.REPLICA_SLOW, S.CANARY_LATENCY, S.CANARY_ERRORS),
        advice="Check the replica's host and the network between it and the front door.",
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


def complete(table: Mapping[Cause, Rule], remedies: Mapping[str, Remedy]) -> Mapping[Cause, Rule]:
    """The table, with the places that remedies name for themselves (``tried_for``).

    Raises:
        ValueError: a name in the table, or in ``tried_for``, is no remedy of that row.
    """
    found = {cause: list(rule.remedies) for cause, rule in table.items()}
    for cause, names in found.items():
        for name in names:
            if name not in remedies:
                near = "".join(f"; did you mean {one!r}?" for one in get_close_matches(name, remedies, 1))
                raise ValueError(f"the policy's row {cause.value!r} names {name!r}, which is no remedy{near}")
    for one in remedies.values():
        for place in one.tried_for:
            row = found[place.cause]
            if place.before and place.before not in row:
                raise ValueError(
                    f"remedy {one.name!r} asks to be tried for {place.cause.value!r} before {place.before!r}; "
                    f"that row has {', '.join(row) or 'no remedies'}"
                )
            row.insert(row.index(place.before) if place.before else len(row), one.name)
    return {cause: replace(rule, remedies=tuple(found[cause])) for cause, rule in table.items()}


POLICY = complete(TABLE, REMEDIES)
"""What the Elephant does about each cause."""


@dataclass(frozen=True, slots=True)
class ActionLimits:
    """Limits that keep the Elephant from doing harm."""

    actions_per_minute: int = 8
    cool_down_s: float = 1.0
    """Between two actions of one case."""
    quiet_s: float = 1.5
    """How long signals must be back in range."""
    settle_s: float = 4.0
    """For how long after an action no detection counts as of an unknown cause."""


class State(StrEnum):
    """Where a case stands."""

    OPEN = "open"
    ACTING = "acting"
    VERIFYING = "verifying"
    ESCALATED = "escalated"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One remedy that was tried."""

    remedy: str
    """Its name."""
    began_s: float
    ended_s: float
    ok: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Case:
    """One cause on one subject, from its diagnosis until its signals are quiet; moved on by ``observe``."""

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
    """Act now."""

    remedy: str
    """The remedy's name."""


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
    """Note whether the case's signals are quiet. None: it is not known what is in range, so no signal is quiet."""
    if out_of_range is None or out_of_range & set(case.rule.quiet):
        return replace(case, quiet_since_s=None)
    return case if case.quiet_since_s is not None else replace(case, quiet_since_s=now_s)


def decide(case: Case, actions_s: Sequence[float], now_s: float, limits: ActionLimits) -> Decision:
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
        return Wait()  # The signals are in range already: acting now could only disturb.
    if len(case.tried) >= len(case.rule.remedies):
        return Escalate(
            "no remedy is known for it" if not case.tried else "every remedy was tried, and it persists"
        )
    if sum(now_s - at_s < 60.0 for at_s in actions_s) >= limits.actions_per_minute:
        return Escalate(f"{limits.actions_per_minute} actions within a minute: more would be thrashing")
    return Act(case.rule.remedies[len(case.tried)])


RELAPSE_S = 10.0
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Mitigation:
    """A remedy that is in force on a subject, and has to be lifted once that is safe."""

    remedy: Remedy
    subject: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How long mitigations stay in force: twice as long after each time that the Elephant lifted one too early.

    Keys are a remedy's name and the subject.
    """

    lifted_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def lifted(self, remedy: str, subject: str, now_s: float) -> Patience:
        """Note that the remedy was lifted."""
        return replace(self, lifted_s={**self.lifted_s, (remedy, subject): now_s})

    def needed_again(self, remedy: str, subject: str, now_s: float) -> Patience:
        """Note that the remedy is applied (again): soon after it was lifted means that lifting it was wrong."""
        key = (remedy, subject)
        relapsed = now_s - self.lifted_s.get(key, -RELAPSE_S) < RELAPSE_S
        return replace(self, failures={**self.failures, key: self.failures.get(key, 0) + 1 if relapsed else 0})

    def keep_s(self, mitigation: Mitigation) -> float:
        """How long the mitigation stays in force at least."""
        failures = self.failures.get((mitigation.remedy.name, mitigation.subject), 0)
        return min(LONGEST_WAIT_S, mitigation.remedy.evidence_s * 2.0**failures)

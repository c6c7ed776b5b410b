"""The two tables: what is taken for what, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.healing.detect import Detection, Signal
from monkeyproof.healing.diagnose import TABLE, Cause, Diagnosis, OngoingDetection, diagnose
from monkeyproof.healing.policy import (
    LONGEST_WAIT_S,
    POLICY,
    Act,
    ActionLimits,
    Attempt,
    Case,
    Decision,
    Escalate,
    Mitigation,
    Patience,
    Resolve,
    State,
    Wait,
    decide,
    observe,
)
from monkeyproof.healing.remedies import REMEDIES

S = Signal
LIMITS = ActionLimits()


def seen(*signals: Signal | tuple[Signal, float], subject: str = "x") -> list[OngoingDetection]:
    """Signals with since when; 0 if not said."""
    pairs = [one if isinstance(one, tuple) else (one, 0.0) for one in signals]
    return [
        OngoingDetection(Detection(signal, subject, 1.0, 0.0, f"{signal} strays"), since_s)
        for signal, since_s in pairs
    ]


@pytest.mark.parametrize(
    ("signals", "now_s", "expected"),
    [
        ([], 9.0, []),
        ([S.CANARY_ACCURACY], 1.0, []),
        ([S.CANARY_ACCURACY], 3.0, [Cause.UNKNOWN]),
        ([S.CANARY_ACCURACY, S.CHAMPION_CHANGED], 0.0, [Cause.MODEL_REGRESSED]),
        ([S.CANARY_ACCURACY, S.CHAMPION_CHANGED, S.STRAY_RECORDS], 0.0, [Cause.DATA_CORRUPTED]),
        ([S.CANARY_ACCURACY, S.CHAMPION_CHANGED, S.FALLBACK], 0.7, [Cause.FEATURES_UNAVAILABLE]),
        ([S.FALLBACK], 0.5, []),
        ([S.FALLBACK, S.STORE_DOWN], 0.0, [Cause.FEATURES_UNAVAILABLE]),
        ([S.STORE_DOWN], 9.0, []),
        ([S.FEATURE_ERRORS], 9.0, []),
        ([S.STRAY_FEATURES], 9.0, []),
        ([S.STRAY_FEATURES, S.CANARY_ACCURACY], 1.0, [Cause.DATA_CORRUPTED]),
        ([S.STRAY_FEATURES, S.CANARY_ACCURACY, S.FALLBACK], 0.5, []),
        ([S.REPLICA_SLOW], 0.0, [Cause.REPLICA_SLOW]),
        ([S.REPLICA_SLOW, S.FALLBACK], 0.5, []),
        ([S.REPLICA_SLOW, S.STORE_DOWN], 9.0, []),
        ([S.REPLICA_DOWN, S.CANARY_ERRORS], 9.0, [Cause.REPLICA_DEAD]),
        ([S.CANARY_LATENCY], 3.0, []),
        ([S.CANARY_LATENCY], 5.0, [Cause.UNKNOWN]),
        ([S.TELEMETRY_LOST], 3.0, [Cause.BLIND]),
        ([S.TELEMETRY_LOST, S.CANARY_ACCURACY], 3.0, [Cause.BLIND, Cause.UNKNOWN]),
    ],
)
def test_the_table_of_causes(signals: list[Signal], now_s: float, expected: list[Cause]) -> None:
    assert [one.cause for one in diagnose(seen(*signals), now_s)] == expected


def test_evidence_counts_from_when_all_of_it_is_there() -> None:
    table = seen((S.STRAY_FEATURES, 0.0), (S.CANARY_ACCURACY, 5.0))
    assert diagnose(table, 5.5) == ()
    assert diagnose(table, 6.0)[0].cause is Cause.DATA_CORRUPTED


def test_two_replicas_are_two_cases_and_two_features_are_one() -> None:
    slow = seen(S.REPLICA_SLOW, subject="replica-1") + seen(S.REPLICA_SLOW, subject="replica-2")
    assert [one.subject for one in diagnose(slow, 0.0)] == ["replica-1", "replica-2"]
    stray = seen(S.STRAY_FEATURES, subject="f1") + seen(S.STRAY_FEATURES, subject="f2") + seen(S.CANARY_ACCURACY)
    assert len(diagnose(stray, 1.0)) == 1


def test_no_cause_is_unknown_while_the_elephant_acts() -> None:
    assert diagnose(seen(S.CANARY_ACCURACY), 9.0, explained=True) == ()


def test_every_cause_has_a_row_a_rule_and_advice() -> None:
    assert {row.cause for row in TABLE} == set(Cause) == set(POLICY)
    assert all(rule.advice and rule.quiet for rule in POLICY.values())
    lifts = {one.lifted_by.name for one in REMEDIES.values() if one.lifted_by is not None}
    assert lifts | {name for rule in POLICY.values() for name in rule.remedies} == set(REMEDIES)


def case_of(cause: Cause, *tried: tuple[str, float, bool]) -> Case:
    attempts = tuple(Attempt(remedy, ended_s - 0.1, ended_s, ok, "") for remedy, ended_s, ok in tried)
    state = State.VERIFYING if attempts and attempts[-1].ok else State.OPEN
    return Case(Diagnosis(cause, "x", ()), 0.0, state, attempts)


DRAINED = ("drain", 0.5, True)


@pytest.mark.parametrize(
    ("case", "quiet_since_s", "now_s", "expected"),
    [
        (case_of(Cause.REPLICA_SLOW), None, 0.0, Act("drain")),
        (case_of(Cause.REPLICA_DEAD), None, 1.0, Wait()),
        (case_of(Cause.REPLICA_DEAD), None, 1.5, Act("restart")),
        (case_of(Cause.REPLICA_DEAD), 1.0, 1.6, Wait()),
        (case_of(Cause.REPLICA_DEAD), 1.0, 2.5, Resolve()),
        (case_of(Cause.DATA_CORRUPTED), 0.0, 0.0, Act("quarantine_and_restore")),
        (case_of(Cause.REPLICA_SLOW, DRAINED), None, 1.0, Wait()),
        (case_of(Cause.REPLICA_SLOW, DRAINED), 1.0, 2.4, Wait()),
        (case_of(Cause.REPLICA_SLOW, DRAINED), 1.0, 2.5, Resolve()),
        (case_of(Cause.REPLICA_SLOW, DRAINED), 0.0, 1.9, Wait()),
        (case_of(Cause.REPLICA_SLOW, DRAINED), None, 4.6, Act("restart")),
        (case_of(Cause.REPLICA_SLOW, DRAINED), 4.4, 4.6, Wait()),
        (case_of(Cause.MODEL_REGRESSED, ("roll_back", 8.0, False)), None, 8.5, Wait()),
        (case_of(Cause.MODEL_REGRESSED, ("roll_back", 8.0, False)), None, 9.0, Act("roll_back")),
        (case_of(Cause.UNKNOWN), None, 0.0, Escalate("no remedy is known for it")),
    ],
)
def test_what_follows(case: Case, quiet_since_s: float | None, now_s: float, expected: Decision) -> None:
    assert decide(replace(case, quiet_since_s=quiet_since_s), [], now_s, LIMITS) == expected


def test_it_escalates_once_every_remedy_was_tried() -> None:
    spent = case_of(Cause.FEATURES_UNAVAILABLE, *[("serve_snapshot", float(n), False) for n in (1, 3)])
    assert isinstance(decide(spent, [], 9.0, LIMITS), Escalate)
    escalated = replace(spent, state=State.ESCALATED)
    assert decide(escalated, [], 99.0, LIMITS) == Wait()
    assert decide(replace(escalated, quiet_since_s=97.0), [], 99.0, LIMITS) == Resolve()


def test_too_many_actions_within_a_minute_are_thrashing() -> None:
    busy = [float(n) for n in range(LIMITS.actions_per_minute)]
    assert isinstance(decide(case_of(Cause.REPLICA_SLOW), busy, 30.0, LIMITS), Escalate)
    assert decide(case_of(Cause.REPLICA_SLOW), busy, 100.0, LIMITS) == Act("drain")


def test_what_is_not_known_is_not_quiet() -> None:
    case = observe(case_of(Cause.REPLICA_SLOW), frozenset(), 1.0)
    assert case.quiet_since_s == 1.0
    assert observe(case, frozenset(), 2.0).quiet_since_s == 1.0
    assert observe(case, frozenset({S.STRAY_FEATURES}), 2.0).quiet_since_s == 1.0, "not a signal of this case"
    assert observe(case, frozenset({S.REPLICA_SLOW}), 2.0).quiet_since_s is None
    assert observe(case, None, 2.0).quiet_since_s is None


@given(st.lists(st.floats(0.1, 200.0), max_size=12))
def test_patience_grows_with_each_early_lift_up_to_a_limit(pauses_s: list[float]) -> None:
    patience, now_s, failures = Patience(), 0.0, 0
    for pause_s in pauses_s:
        patience = patience.lifted("drain", "x", now_s)
        failures = failures + 1 if (now_s + pause_s) - now_s < 10.0 else 0
        now_s += pause_s
        patience = patience.needed_again("drain", "x", now_s)
        kept_s = patience.keep_s(Mitigation(REMEDIES["drain"], "x", now_s))
        assert kept_s == min(LONGEST_WAIT_S, REMEDIES["drain"].evidence_s * 2.0**failures)

"""Record, act, prove, take back: on every way through."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from undo_world import OLD_INTENT, FakeTarget, fault, kinds, lines_of

from monkeyproof.errors import MonkeyproofError, NotReverted, Refusal, UsageError
from monkeyproof.faults import noop
from monkeyproof.injection.inject import Context, current, inject, revert, set_current
from monkeyproof.record.history import Kind
from monkeyproof.safety import replay, revert_one
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import OpenFault, Undo, read_open


def test_intent_is_on_disk_before_the_act(context: Context) -> None:
    seen: list[OpenFault] = []
    inject(fault(apply=lambda: seen.extend(read_open(context.undo.path))))
    assert [one.fault for one in seen] == ["noop.thing"]
    assert kinds(context) == [Kind.FAULT_INTENDED, Kind.FAULT_EFFECTIVE]


def test_revert_is_idempotent(context: Context) -> None:
    noop.nothing()
    assert len(revert()) == 1
    assert revert() == []
    assert kinds(context)[-3:] == [Kind.PHASE_STARTED, Kind.FAULT_REVERTED, Kind.PHASE_ENDED]
    assert kinds(context).count(Kind.FAULT_REVERTED) == 1


def test_failed_act_is_reverted(context: Context) -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        inject(fault(apply=fail))
    assert kinds(context) == [Kind.FAULT_INTENDED, Kind.FAULT_UNPROVEN, Kind.FAULT_REVERTED]
    assert not context.undo.open_faults()


def test_fault_without_evidence_is_reverted_and_never_effective(context: Context) -> None:
    with pytest.raises(MonkeyproofError, match="no evidence of an effect within 5 s"):
        inject(fault(evidence=lambda _: None))
    assert Kind.FAULT_EFFECTIVE not in kinds(context)
    assert not context.undo.open_faults()


def test_one_shot_fault_has_nothing_to_revert(context: Context) -> None:
    inject(fault(undo=None, one_shot="dead is dead", prior={"pid": 7}))
    assert revert() == []
    assert Kind.FAULT_REVERTED not in kinds(context)
    # It is on record all the same, and never open.
    intent, effective = lines_of(context.undo.path)
    assert (intent["undo"], intent["nothing_to_undo"], intent["prior"]) == (None, "dead is dead", {"pid": 7})
    assert effective["step"] == "effective"
    assert context.undo.open_faults() == []


def test_fault_without_undo_lease_or_reason_is_refused(context: Context) -> None:
    for lease_s in (None, 5.0):
        with pytest.raises(Refusal, match=r"not injecting: noop.thing on s says neither .*; give its Injection"):
            inject(fault(undo=None, lease_s=lease_s, apply=pytest.fail))
    assert kinds(context) == []
    assert context.undo.path.read_bytes() == b""


def test_log_records_run_fault_subject_time_and_prior_state(context: Context) -> None:
    inject(fault(prior={"champion": "3"}, lease_s=5.0))
    revert()
    intent, effective, reverted = lines_of(context.undo.path)
    assert intent == {
        "step": "intent",
        "run": context.undo.path.stem,
        "id": f"{context.folder.name}-1",
        "fault": "noop.thing",
        "subject": "s",
        "undo": {"function": "monkeyproof.faults.noop:undo_nothing", "arguments": {}},
        "target_file": str(context.target.file.path),
        "prior": {"champion": "3"},
        "lease_s": 5.0,
        "utc": intent["utc"],
    }
    assert (effective["summary"], reverted["summary"]) == ("seen", "there was nothing to revert")
    assert all(datetime.fromisoformat(one["utc"]).utcoffset() == timedelta(0) for one in (effective, reverted))


def test_dry_run_shows_prior_state_and_undo_of_old_logs_too(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(
        fault(
            prior={"state": "ready", "faults": ["a"]},
            lease_s=5.0,
            undo=Undo("monkeyproof.faults.noop:undo_nothing", {"n": 1}),
        )
    )
    (undo_log.undo_dir() / "new.jsonl").write_bytes(context.undo.path.read_bytes())
    (undo_log.undo_dir() / "old.jsonl").write_bytes(
        OLD_INTENT + b'{"step":"effective","id":"t-1","summary":"seen"}\n'
    )
    said: list[str] = []
    assert replay.revert_all(said.append, dry_run=True) == 2
    assert [line.split(", injected")[0] for line in said] == [
        "open: noop.thing on s",
        '    before: state=ready, faults=["a"]; lease: 5 s; undone by monkeyproof.faults.noop:undo_nothing(n=1)',
        "open: noop.nothing on s",
        "    before: not on record; lease: none; undone by monkeyproof.faults.noop:undo_nothing()",
    ]
    (undo_log.undo_dir() / "new.jsonl").unlink()
    monkeypatch.setattr(revert_one, "open_target", lambda _: context.target)
    assert replay.revert_all(said.append) == 1
    assert said[-1].startswith("reverted: noop.nothing on s")


def test_family_that_the_target_does_not_allow(context: Context) -> None:
    context.target = FakeTarget(())
    with pytest.raises(Refusal, match="not injecting: target 'fake' does not allow"):
        noop.nothing()
    assert kinds(context) == []
    assert not context.undo.open_faults()


def test_no_trial_no_fault() -> None:
    set_current(None)
    with pytest.raises(Refusal, match="no trial is open"):
        current()
    with pytest.raises(Refusal, match="no trial is open"):
        noop.nothing()


def stuck(target: object) -> str:  # noqa: ARG001
    raise OSError("the target is gone")


def test_one_stuck_undo_does_not_keep_the_others(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(fault(subject="first"))
    monkeypatch.setattr(noop, "stuck", stuck, raising=False)
    inject(fault(subject="second", undo=Undo("monkeyproof.faults.noop:stuck", {})))
    with pytest.raises(NotReverted, match="second: the target is gone"):
        revert()
    assert [one.subject for one in context.undo.open_faults()] == ["second"]


@pytest.mark.parametrize("function", ["os:system", "monkeyproof.errors:Refusal", "monkeyproof.faults.noop:a.b"])
def test_only_the_faults_room_may_undo(context: Context, function: str) -> None:
    with pytest.raises(UsageError, match="not an undo"):
        Undo(function, {}).run(context.target)


@pytest.mark.parametrize("function", ["monkeyproof.faults.noop:none_such", "monkeyproof.faults.none_such:x"])
def test_missing_undo_function_is_an_error(context: Context, function: str) -> None:
    with pytest.raises(UsageError, match=r"has no undo 'monkeyproof.faults\..*none_such"):
        inject(fault(undo=Undo(function, {}), apply=pytest.fail))
    assert context.undo.path.read_bytes() == b""


def test_failed_check_does_not_prevent_the_revert(context: Context) -> None:
    def fail() -> None:
        raise KeyError("x")

    noop.nothing()
    context.before_revert = fail
    with pytest.raises(KeyError):
        revert()
    assert not context.undo.open_faults()
    assert kinds(context)[-1] is Kind.PHASE_ENDED


def test_end_summary_matches_what_was_done(context: Context) -> None:
    assert context.undo.known.end_summary == "nothing had been injected"
    inject(fault(undo=None, one_shot="its author says so"))
    assert context.undo.known.end_summary == "nothing was reverted of noop.thing on s (its author says so)"


def test_no_watchdog_no_fault(context: Context) -> None:
    def refuse() -> None:
        raise Refusal("the watchdog does not start", "see why")

    context.before_injection = refuse
    with pytest.raises(Refusal, match="the watchdog does not start"):
        noop.nothing()
    assert kinds(context) == []


def test_randomness_depends_on_seed_and_purpose_alone(context: Context) -> None:
    first = context.rng("a").random(3).tolist()
    context.rng("b").random(100)
    assert context.rng("a").random(3).tolist() == first
    assert context.rng("b").random(3).tolist() != first

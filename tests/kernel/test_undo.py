"""Record, act, prove, take back: on every way through, and with a log that is torn, stuck or tampered with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monkeyproof import paths, reverting, undo
from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config import Predict, TargetFile
from monkeyproof.errors import MonkeyproofError, NotReverted, Refusal, UsageError
from monkeyproof.faults import noop
from monkeyproof.history import HistoryWriter, Kind, parse_events
from monkeyproof.injection import Context, Injection, current, inject, revert, set_current
from monkeyproof.types import Evidence
from monkeyproof.undo import OpenFault, Undo, UndoLog, read_open


class FakeTarget:
    """A target with no capabilities: what the fault does is a list in this test."""

    def __init__(self, families: tuple[str, ...]) -> None:
        self.file = TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=families)

    def find(self, capability: type[Any]) -> Any:  # noqa: ARG002
        return None

    def close(self) -> None: ...


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    clock = ManualClock(50.0)
    history = HistoryWriter(tmp_path, Anchor.now(clock), "trial", clock)
    log = UndoLog(tmp_path / "undo.jsonl")
    made = Context(tmp_path, FakeTarget(("noop",)), history, log, 7, "none", clock)
    set_current(made)
    yield made
    set_current(None)


def kinds(context: Context) -> list[Kind]:
    return [event.kind for event in parse_events((context.folder / "events.jsonl").read_bytes())]


def fault(**changes: Any) -> Injection:
    settings: dict[str, Any] = {
        "fault": "noop.thing",
        "subject": "s",
        "parameters": {"share": 0.1},
        "apply": lambda: None,
        "evidence": lambda _: Evidence("seen"),
        "undo": Undo("monkeyproof.faults.noop:undo_nothing", {}),
    }
    return Injection(**settings | changes)


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


def test_act_that_fails_is_taken_back(context: Context) -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        inject(fault(apply=fail))
    assert kinds(context) == [Kind.FAULT_INTENDED, Kind.FAULT_UNPROVEN, Kind.FAULT_REVERTED]
    assert not context.undo.open_faults()


def test_fault_without_evidence_is_taken_back_and_never_effective(context: Context) -> None:
    with pytest.raises(MonkeyproofError, match="no evidence of an effect within 5 s"):
        inject(fault(evidence=lambda _: None))
    assert Kind.FAULT_EFFECTIVE not in kinds(context)
    assert not context.undo.open_faults()


def test_one_shot_fault_has_nothing_to_take_back(context: Context) -> None:
    inject(fault(undo=None))
    assert revert() == []
    assert Kind.FAULT_REVERTED not in kinds(context)


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


def test_torn_intent_was_never_injected(context: Context) -> None:
    noop.nothing()
    whole = context.undo.path.read_bytes()
    for cut in range(len(whole)):
        torn = context.folder / "torn.jsonl"
        torn.write_bytes(whole[:cut])
        assert read_open(torn) == []


def test_damaged_log_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"step":"intent"}\n')
    with pytest.raises(UsageError, match=r"a.jsonl:1: cannot be understood"):
        read_open(path)


def test_log_moves_into_the_trial_only_when_nothing_is_open(context: Context) -> None:
    noop.nothing()
    context.undo.close(context.folder / "archive.jsonl")
    assert context.undo.path.exists()
    assert not (context.folder / "archive.jsonl").exists()
    again = UndoLog(context.undo.path)
    again.reverted(read_open(again.path)[0].id, "done")
    again.close(context.folder / "archive.jsonl")
    assert not again.path.exists()
    assert [json.loads(line)["step"] for line in (context.folder / "archive.jsonl").open()] == [
        "intent",
        "reverted",
    ]


def test_run_refuses_while_a_fault_is_open_and_revert_mends_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = UndoLog(undo.undo_dir() / "left.jsonl")
    log.intend(
        OpenFault("t-1", "noop.nothing", "s", Undo("monkeyproof.faults.noop:undo_nothing", {}), "x.yaml", "2026")
    )
    with pytest.raises(Refusal, match="run 'monkeyproof revert' first"):
        reverting.refuse_while_open()
    monkeypatch.setattr(reverting, "open_target", lambda _: context.target)
    said: list[str] = []
    assert reverting.revert_all(said.append, dry_run=True) == 1
    assert "noop.nothing on s" in said[0]
    assert reverting.revert_all(said.append) == 1
    assert reverting.revert_all(said.append) == 0
    reverting.refuse_while_open()


def test_a_fault_goes_with_its_embedded_target() -> None:
    log = UndoLog(undo.undo_dir() / "left.jsonl")
    file = str(paths.target_dir() / "target.yaml")
    log.intend(
        OpenFault("t-1", "network.latency", "l", Undo("monkeyproof.faults.network:remove_toxic", {}), file, "2026")
    )
    said: list[str] = []
    assert reverting.revert_all(said.append) == 1
    assert "the fault went with it" in said[0]
    reverting.refuse_while_open()


def test_one_campaign_at_a_time() -> None:
    with (
        reverting.sole_campaign(),
        pytest.raises(Refusal, match="another campaign is running"),
        reverting.sole_campaign(),
    ):
        pass
    with reverting.sole_campaign():
        pass


def test_randomness_depends_on_seed_and_purpose_alone(context: Context) -> None:
    first = context.rng("a").random(3).tolist()
    context.rng("b").random(100)
    assert context.rng("a").random(3).tolist() == first
    assert context.rng("b").random(3).tolist() != first

"""A disk that takes no more: what is not on record is not injected, and what was injected is reverted."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_world import FakeRunner, plan_of, target_file

from monkeyproof.campaign.runner import run_campaign
from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.errors import EXIT_REFUSED, Refusal
from monkeyproof.injection.inject import Context, Injection, inject, revert, set_current
from monkeyproof.record import history
from monkeyproof.record.history import EVENTS_FILE, HistoryWriter, Kind, parse_events
from monkeyproof.record.trial_end import has_begun_to_end
from monkeyproof.safety.replay import clear_to_inject
from monkeyproof.types import Evidence
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import OpenFault, Undo, UndoLog, read_open


@contextlib.contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """As on a full disk, a write beyond that fails, or is cut off there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Target:
    def __init__(self) -> None:
        self.file = TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=("noop",))

    def find(self, capability: object) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    clock = ManualClock(50.0)
    writer = HistoryWriter(tmp_path, Anchor.now(clock), "trial", clock, keeps_going=True)
    log = UndoLog(undo_log.undo_dir() / "t.jsonl")
    made = Context(tmp_path, Target(), writer, log, 7, "none", clock)
    set_current(made)
    yield made
    set_current(None)


def fault(applied: list[str], evidence: str = "seen") -> Injection:
    return Injection(
        fault="noop.thing",
        subject="s",
        parameters={},
        apply=lambda: applied.append("broken"),
        evidence=lambda _: Evidence(evidence),
        undo=Undo("monkeyproof.faults.noop:undo_nothing", {}),
    )


def kinds(folder: Path) -> list[Kind]:
    return [event.kind for event in parse_events((folder / EVENTS_FILE).read_bytes())]


def test_a_truncated_event_leaves_whole_lines(tmp_path: Path) -> None:
    anchor = Anchor.now(ManualClock())
    first, second = (
        HistoryWriter(tmp_path, anchor, source, keeps_going=source == "trial") for source in ("trial", "healer")
    )
    first.event(Kind.TRIAL_STARTED)
    size = (tmp_path / EVENTS_FILE).stat().st_size
    with no_file_beyond(size + 20):
        first.event(Kind.TRIAL_ENDED)
        assert first.lost == f"{tmp_path / EVENTS_FILE} cannot be written (No space left on device)"
        assert first.why_unrecorded() == first.lost
        with pytest.raises(OSError, match="No space left"):
            second.event(Kind.HEALER_READY)
    assert (tmp_path / EVENTS_FILE).stat().st_size == size
    second.event(Kind.HEALER_READY)
    assert kinds(tmp_path) == [Kind.TRIAL_STARTED, Kind.HEALER_READY]
    assert second.why_unrecorded() == second.lost != ""


def test_a_full_disk_is_noticed_before_data_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = HistoryWriter(tmp_path, Anchor.now(ManualClock()), "trial", keeps_going=True)
    assert writer.why_unrecorded() == ""
    real = os.statvfs(tmp_path)
    full = os.statvfs_result([0 if place in (3, 4) else value for place, value in enumerate(real)])
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert "cannot be written (No space left on device)" in writer.why_unrecorded()


def test_files_are_replaced_atomically(tmp_path: Path) -> None:
    history.write_json(tmp_path / "a.json", {"old": 1})
    with no_file_beyond(10), pytest.raises(OSError, match="File too large"):
        history.write_json(tmp_path / "a.json", {"new": "x" * 1000})
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["a.json"]
    assert "old" in (tmp_path / "a.json").read_text()


def test_nothing_is_injected_without_a_history(context: Context) -> None:
    applied: list[str] = []
    context.history.event(Kind.TRIAL_STARTED, why="x" * 2000)
    with no_file_beyond(2000), pytest.raises(Refusal, match=r"not injecting: .*events.jsonl cannot be written"):
        inject(fault(applied))
    assert applied == []
    revert()
    context.undo.close()
    assert undo_log.open_logs() == []


def test_a_fault_whose_evidence_is_not_logged_is_reverted(context: Context) -> None:
    applied: list[str] = []
    with no_file_beyond(2000), pytest.raises(Refusal, match=r"not injecting: the undo log .* cannot be written"):
        inject(fault(applied, evidence="y" * 2000))
    assert applied == ["broken"]
    assert context.undo.open_faults() == []
    assert kinds(context.folder)[:2] == [Kind.FAULT_INTENDED, Kind.FAULT_UNPROVEN]


def test_a_fault_is_reverted_on_a_full_disk(context: Context) -> None:
    inject(fault([]))
    with no_file_beyond(0):
        assert len(revert()) == 1
        assert context.history.lost
        assert len(read_open(context.undo.path)) == 1  # No process could record that it is done.
        assert context.undo.open_faults() == []
        context.undo.close(context.folder / "undo.jsonl")
    assert undo_log.open_logs() == []


def test_no_campaign_begins_that_could_not_be_recorded(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "c", target := target_file(tmp_path))
    runner = FakeRunner(target)
    with (
        no_file_beyond(0),
        pytest.raises(Refusal, match=r"not injecting: .*/c cannot be written \(File too large\)"),
    ):
        run_campaign(plan, run_trial=runner)
    with no_file_beyond(0), pytest.raises(Refusal, match=r"not injecting: the undo log .*undo cannot be written"):
        clear_to_inject().__enter__()
    assert runner.ran == []


def test_a_campaign_that_can_no_longer_be_recorded_is_aborted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "c", target := target_file(tmp_path))
    runner = FakeRunner(target)
    limit = contextlib.ExitStack()

    def runs_full(*arguments: object) -> tuple[int, str]:
        result = runner(*arguments)  # type: ignore[arg-type]
        if len(runner.ran) == 2:
            limit.enter_context(no_file_beyond(0))
        return result

    with limit:
        finished = run_campaign(plan, run_trial=runs_full)
    assert finished.exit_code == EXIT_REFUSED
    assert finished.error == f"{plan.folder} cannot be written (File too large)"
    assert finished.campaign.aborted


def test_events_show_whether_a_trial_reverts(tmp_path: Path) -> None:
    assert not has_begun_to_end(tmp_path, 0)
    writer = HistoryWriter(tmp_path, Anchor.now(ManualClock()), "trial")
    writer.event(Kind.PHASE_STARTED, "revert")
    writer.event(Kind.PHASE_STARTED, "after_revert")
    assert has_begun_to_end(tmp_path, 0)
    assert not has_begun_to_end(tmp_path, 1)  # That was the experiment's own, and what followed it may hang.
    writer.event(Kind.TRIAL_ENDING)
    assert has_begun_to_end(tmp_path, 99)


def test_the_undo_log_of_a_killed_revert_stays_open(context: Context) -> None:
    context.undo.intend(OpenFault("1", "noop.thing", "s", Undo("monkeyproof.faults.noop:f", {}), "t.yaml", "now"))
    with no_file_beyond(0):
        context.undo.reverted("1", "gone")
    assert [fault.id for fault in read_open(context.undo.path)] == ["1"]

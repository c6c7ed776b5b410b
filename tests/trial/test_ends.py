"""What a trial that ended before its time says of its faults: no more than is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monkeyproof.campaign import worker
from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.errors import EXIT_NOT_REVERTED, EXIT_REFUSED, NotReverted
from monkeyproof.record.history import UNDO_FILE, HistoryWriter, Kind, events_in
from monkeyproof.safety.residue import Residue
from monkeyproof.trial import cleanup, fault_session
from monkeyproof.trial import run as trial_run
from monkeyproof.trial.fault_session import FaultSession, run_name
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.trial.session import TrialSession
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import OpenFault, Undo, UndoLog

KILLED = -9


@pytest.fixture
def plan(tmp_path: Path) -> TrialPlan:
    folder = tmp_path / "c" / "trials" / "001-x-none-1"
    folder.mkdir(parents=True)
    (tmp_path / "log").touch()
    return TrialPlan("x", "x", "0", 1, "none", 0, "", str(folder))


def log_of(plan: TrialPlan) -> UndoLog:
    return UndoLog(undo_log.undo_dir() / f"{run_name(Path(plan.folder))}.jsonl")


def intended(plan: TrialPlan, log: UndoLog, *, held: bool) -> None:
    if held:
        undoing = Undo("monkeyproof.faults.noop:undo_nothing", {})
        log.intend(OpenFault("1", "noop.nothing", "s", undoing, "x.yaml", "2026"))
    else:
        log.intend_one_shot("1", "foreign.break", "t", why="says its author", target_file="", prior={}, t0_utc="")
    writer = HistoryWriter(Path(plan.folder), Anchor.now(SystemClock()), "trial")
    writer.event(Kind.FAULT_INTENDED, "s", id="1", fault="f", held=held)
    writer.close()


def after_death(plan: TrialPlan, status: int = KILLED) -> tuple[int, str]:
    return worker._after_death(plan, status, Path(plan.folder).parents[2] / "log", "a signal ended the trial")


def test_a_killed_worker_without_an_undo_log(plan: TrialPlan) -> None:
    log = log_of(plan)
    intended(plan, log, held=True)
    log.path.unlink()
    code, words = after_death(plan)
    assert code == EXIT_NOT_REVERTED
    assert worker.UNDO_LOG_MISSING in words


def session_with(log: UndoLog) -> FaultSession:
    """With an undo log, and nothing else."""
    faults = FaultSession.__new__(FaultSession)
    faults.log = log
    return faults


@pytest.mark.parametrize(
    ("fault", "looks"), [("data.scale_records", 1), ("drift.covariate_shift", 1), ("network.block", 0)]
)
def test_wrong_values_are_recorded_before_the_revert(
    plan: TrialPlan, monkeypatch: pytest.MonkeyPatch, fault: str, looks: int
) -> None:
    monkeypatch.setattr(fault_session, "record_missing_faults", lambda _: None)
    log, noted = log_of(plan), []
    log.intend(OpenFault("1", fault, "s", Undo("monkeyproof.faults.noop:undo_nothing", {}), "x.yaml", "2026"))
    faults: Any = session_with(log)
    faults.context = None
    faults._safeguards = SimpleNamespace(renew_last_time=lambda: None)
    faults.audit = SimpleNamespace(record_written=lambda: noted.append(fault))
    faults._before_revert()
    assert len(noted) == looks
    log.close()


def test_the_undo_log_of_a_killed_worker_is_reported(plan: TrialPlan) -> None:
    assert after_death(plan) == (EXIT_REFUSED, "a signal ended the trial; nothing had been injected")
    log = log_of(plan)
    intended(plan, log, held=False)
    log.close(Path(plan.folder) / UNDO_FILE)
    assert after_death(plan) == (
        EXIT_REFUSED,
        "a signal ended the trial; nothing was reverted of foreign.break on t (says its author)",
    )


def test_the_later_revert_of_a_killed_workers_fault_is_reported(plan: TrialPlan) -> None:
    log = log_of(plan)
    intended(plan, log, held=True)
    log.close()
    assert after_death(plan) == (EXIT_REFUSED, "a signal ended the trial; what was injected is reverted")
    assert not log.path.exists()


def test_the_message_of_a_trial_that_ends_early(plan: TrialPlan) -> None:
    assert trial_run._exit_of(None, "why") == (EXIT_REFUSED, "why; nothing had been injected")
    one = TrialSession(plan)
    assert trial_run._exit_of(one, "why") == (EXIT_REFUSED, "why; nothing had been injected")
    log = log_of(plan)
    one._fault_session = session_with(log)
    intended(plan, log, held=True)
    assert trial_run._exit_of(one, "why")[0] == EXIT_NOT_REVERTED
    log.reverted("1", "done")
    assert trial_run._exit_of(one, "why") == (EXIT_REFUSED, "why; what was injected is reverted")


def test_residue_is_reported_without_the_trials_folder(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert events_in(gone) == []
    with pytest.raises(NotReverted, match="left behind after the trial: a thing"):
        cleanup.report_residue(gone, Anchor.now(SystemClock()), [Residue("a thing", "mend it")])


def test_any_error_during_the_revert_means_not_reverted(plan: TrialPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise FileNotFoundError("undo.jsonl")

    log = log_of(plan)
    intended(plan, log, held=True)
    monkeypatch.setattr(fault_session, "revert", fail)
    found = session_with(log).revert_all()
    assert isinstance(found, NotReverted)
    assert "noop.nothing on s" in str(found)

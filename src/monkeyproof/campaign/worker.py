"""Runs the worker process of one trial; asks it to end on a signal, and kills it if it does not react."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from monkeyproof.clock import Anchor, Clock
from monkeyproof.errors import (
    EXIT_NOT_REVERTED,
    EXIT_REFUSED,
    MonkeyproofError,
    Refusal,
    UsageError,
)
from monkeyproof.record import history
from monkeyproof.record.history import History, Kind, events_in
from monkeyproof.record.trial_end import REVERT_BEGINS_WITHIN_S, has_begun_to_end
from monkeyproof.runtime.locks import inheritable_descriptors
from monkeyproof.runtime.process_group import ProcessGroup, await_end, last_log_line
from monkeyproof.runtime.stop_file import STOPPED, is_stop_requested
from monkeyproof.safety.replay import revert_all
from monkeyproof.safety.safeguards import await_watchdog
from monkeyproof.trial.cleanup import clean_up_after_death
from monkeyproof.trial.fault_session import run_name
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.undo.entries import LogContents
from monkeyproof.undo.log import read_log, undo_dir

ENDS_WITHIN_S = 60.0
TICK_S = 0.2
UNDO_LOG_MISSING = "its undo log is missing, so what it injected may still be in place"
WATCHDOG_ENDS_WITHIN_S = 75.0
"""Longer than the watchdog's own limit, so that two processes never revert a fault at the same moment."""


class TickListener(Protocol):
    """Follows a trial while it runs."""

    def tick(self, folder: Path) -> None: ...


def run_worker(trial: TrialPlan, listener: TickListener, stop: list[int], clock: Clock) -> tuple[int, str]:
    """Run one worker to its end, sooner if ``stop`` gets a signal.

    Returns:
        An exit code, and why the trial did not end in order; empty if it did.
    """
    folder = Path(trial.folder)
    plan_file = folder.with_name(f"{folder.name}.plan.json")
    log = plan_file.with_suffix(".log")
    try:
        history.write_json(plan_file, asdict(trial))
        log.touch(mode=0o600)
    except OSError as error:
        return EXIT_REFUSED, str(no_room(plan_file, error))
    why_stopped = ""
    with ProcessGroup() as group:
        # The worker inherits the campaign's locks: if it outlives the campaign, its faults are still in place.
        command = [sys.executable, "-m", "monkeyproof.trial.worker", str(plan_file)]
        worker = group.start(command, log=log, pass_fds=inheritable_descriptors())
        asked_s, seen = 0.0, 0
        while worker.poll() is None:
            if (stop or is_stop_requested()) and not why_stopped:
                why_stopped = STOPPED if is_stop_requested() else "a signal ended the trial"
                asked_s, seen = clock.monotonic_s(), len(events_in(folder))
                # Only the worker gets the signal: its observers have to see the revert.
                os.kill(worker.pid, signal.SIGTERM)
            in_order = not why_stopped or has_begun_to_end(folder, seen)
            limit_s = ENDS_WITHIN_S if in_order else REVERT_BEGINS_WITHIN_S
            if why_stopped and clock.monotonic_s() - asked_s > limit_s:
                did = "end" if limit_s > REVERT_BEGINS_WITHIN_S else "react"
                why_stopped += f"; its worker did not {did} within {limit_s:g} s"
                with contextlib.suppress(OSError):
                    _record_abort(folder, why_stopped)
                # Its process group ends with it, and its watchdog reverts its faults.
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
            listener.tick(folder)
            await_end(worker, within_s=TICK_S)
    outcome_file = plan_file.with_suffix(".outcome.json")
    if outcome_file.exists():
        outcome = json.loads(outcome_file.read_bytes())
        plan_file.unlink()
        outcome_file.unlink()
        if log.stat().st_size == 0:
            log.unlink()
        return outcome["exit_code"], outcome["error"]
    # The processes that it started end with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    return _after_death(trial, worker.returncode, log, why_stopped)


def _after_death(trial: TrialPlan, status: int, log: Path, why_stopped: str) -> tuple[int, str]:
    """A worker ended without an outcome. Its watchdog reverts its faults; this reverts those that it could not.

    Args:
        status: The worker's exit status; negative for a signal.
        why_stopped: Why the campaign asked the worker to end; empty if it did not.
    """
    folder = Path(trial.folder)
    await_watchdog(folder, within_s=WATCHDOG_ENDS_WITHIN_S)
    words = why_stopped or f"the trial's worker died (status {status}; {last_log_line(log)}); see {log}"
    with contextlib.suppress(OSError):
        _record_abort(folder, why_stopped or f"its worker died (status {status})")
    words += _why_no_outcome(folder.parent)
    log_was = _undo_log_of(folder)
    try:
        found = revert_all(lambda _: None)
        unknown = status < 0 and not found and log_was is None and _held(folder)
        words += f"; {UNDO_LOG_MISSING}; see {folder}, and restore the target yourself" if unknown else ""
        clean_up_after_death(trial)
    except MonkeyproofError as error:
        return error.exit_code, f"{words}; {error}"
    except OSError as error:
        why = f"what it left cannot be checked ({error.strerror or error})"
        return EXIT_NOT_REVERTED, f"{words}; {why}; make room, then run 'monkeyproof revert'"
    if unknown:
        return EXIT_NOT_REVERTED, words
    if status == EXIT_NOT_REVERTED:  # It ended in order; only its outcome is lost.
        return EXIT_NOT_REVERTED, f"{words}; see what is left in {folder}"
    return EXIT_REFUSED, f"{words}; {_end_words(folder, log_was)}"


def _undo_log_of(folder: Path) -> LogContents | None:
    """A trial's undo log, in the home or where it moved when every fault was reverted; None: it is missing."""
    for path in (undo_dir() / f"{run_name(folder)}.jsonl", folder / history.UNDO_FILE):
        with contextlib.suppress(FileNotFoundError):
            return read_log(path)
    return None


def _held(folder: Path) -> set[str]:
    """Ids of the faults that were to be held and that no event says are reverted."""
    events = events_in(folder)
    held = {str(one.data["id"]) for one in events if one.kind is Kind.FAULT_INTENDED and one.data.get("held")}
    return held - {str(one.data.get("id")) for one in events if one.kind is Kind.FAULT_REVERTED}


def _end_words(folder: Path, log: LogContents | None) -> str:
    if log is not None and (log.intents or log.kept):
        return log.end_summary
    intended = any(one.kind is Kind.FAULT_INTENDED for one in events_in(folder))
    return "what was injected is reverted" if intended else LogContents().end_summary


def no_room(where: Path, error: OSError) -> Refusal:
    """The refusal of a trial that could not be recorded."""
    return Refusal(
        f"{where} cannot be written ({error.strerror or error})",
        "make room on the disk, or choose another folder with --out",
    )


def _why_no_outcome(folder: Path) -> str:
    """Why a worker may have left no outcome: its folder cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        return f"; {folder} cannot be written ({error.strerror or error})"
    return ""


def _record_abort(folder: Path, why: str) -> None:
    """Record why a trial ended. Otherwise a trial that was cut off before a bad answer would count as absorbed."""
    with contextlib.suppress(UsageError):
        trial = History.read(folder)
        if trial.of_kind(Kind.TRIAL_ABORTED):
            return  # Its watchdog has recorded it, with the time.
        writer = history.HistoryWriter(folder, Anchor(**trial.trial["anchor"]), "campaign")
        writer.event(Kind.TRIAL_ABORTED, folder.name, why=why)
        writer.close()

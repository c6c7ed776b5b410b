"""One trial's worker process, run to its end: in order, sooner if it is told to, killed if it does not listen."""

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
from monkeyproof.record.leaving import LEAVES_WITHIN_S, is_leaving
from monkeyproof.runtime.locks import shared
from monkeyproof.runtime.process_group import ProcessGroup, await_end, last_line
from monkeyproof.runtime.stop_file import STOPPED, is_stopped
from monkeyproof.safety.replay import revert_all
from monkeyproof.safety.safeguards import await_watchdog
from monkeyproof.trial.cleanup import clean_up_after_death
from monkeyproof.trial.fault_session import run_name
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.undo.entries import Contents
from monkeyproof.undo.log import read_log, undo_dir

ENDS_WITHIN_S = 60.0
TICK_S = 0.2
NOT_KNOWN = "its undo log is gone, so what it had injected may still be there"
WATCHDOG_ENDS_WITHIN_S = 75.0
"""Longer than it gives itself, so that nothing is undone twice at the same moment."""


class Ticks(Protocol):
    """Somebody who follows the trial."""

    def tick(self, folder: Path) -> None: ...


def run_worker(trial: TrialPlan, watcher: Ticks, stop: list[int], clock: Clock) -> tuple[int, str]:
    """Run one worker to its end, sooner if ``stop`` gets a signal. Returns its exit code and its words."""
    folder = Path(trial.folder)
    plan_file = folder.with_name(f"{folder.name}.plan.json")
    log = plan_file.with_suffix(".log")
    try:
        history.write_json(plan_file, asdict(trial))
        log.touch(mode=0o600)
    except OSError as error:
        return EXIT_REFUSED, str(no_room(plan_file, error))
    told = ""
    with ProcessGroup() as group:
        # With the campaign's locks: a worker that outlives it still breaks things.
        words = [sys.executable, "-m", "monkeyproof.trial.worker", str(plan_file)]
        worker = group.start(words, log=log, pass_fds=shared())
        told_s, seen = 0.0, 0
        while worker.poll() is None:
            if (stop or is_stopped()) and not told:
                told = STOPPED if is_stopped() else "a signal ended the trial"
                told_s, seen = clock.monotonic_s(), len(events_in(folder))
                # The worker alone: its observers have to see the revert.
                os.kill(worker.pid, signal.SIGTERM)
            limit_s = ENDS_WITHIN_S if not told or is_leaving(folder, seen) else LEAVES_WITHIN_S
            if told and clock.monotonic_s() - told_s > limit_s:
                did = "end" if limit_s > LEAVES_WITHIN_S else "react"
                told += f"; its worker did not {did} within {limit_s:g} s"
                with contextlib.suppress(OSError):
                    _note_death(folder, told)
                # What belongs to it ends with it, and its watchdog takes back the rest.
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
            watcher.tick(folder)
            await_end(worker, within_s=TICK_S)
    outcome_file = plan_file.with_suffix(".outcome.json")
    if outcome_file.exists():
        outcome = json.loads(outcome_file.read_bytes())
        plan_file.unlink()
        outcome_file.unlink()
        if log.stat().st_size == 0:
            log.unlink()
        return outcome["exit_code"], outcome["error"]
    # What it ran ends with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    return _after_death(trial, worker.returncode, log, told)


def _after_death(trial: TrialPlan, status: int, log: Path, told: str) -> tuple[int, str]:
    """It left no word. Its watchdog takes back what it left; what that could not is taken back here.

    Args:
        told: why it was told to end, if it was.
    """
    folder = Path(trial.folder)
    await_watchdog(folder, within_s=WATCHDOG_ENDS_WITHIN_S)
    words = told or f"the trial's worker died (status {status}; {last_line(log)}); see {log}"
    with contextlib.suppress(OSError):
        _note_death(folder, told or f"its worker died (status {status})")
    words += _why_mute(folder.parent)
    log_was = _undo_log_of(folder)
    try:
        found = revert_all(lambda _: None)
        unknown = status < 0 and not found and log_was is None and _held(folder)
        words += f"; {NOT_KNOWN}; see {folder}, and mend it by hand" if unknown else ""
        clean_up_after_death(trial)
    except MonkeyproofError as error:
        return error.exit_code, f"{words}; {error}"
    except OSError as error:
        why = f"what it left cannot be looked at ({error.strerror or error})"
        return EXIT_NOT_REVERTED, f"{words}; {why}; make room, then say 'monkeyproof revert'"
    if unknown:
        return EXIT_NOT_REVERTED, words
    if status == EXIT_NOT_REVERTED:  # It has ended in order; only its words are lost.
        return EXIT_NOT_REVERTED, f"{words}; see what is left in {folder}"
    return EXIT_REFUSED, f"{words}; {_end_words(folder, log_was)}"


def _undo_log_of(folder: Path) -> Contents | None:
    """What stands in a trial's undo log, in the home or where it moved when all was taken back; None: gone."""
    for path in (undo_dir() / f"{run_name(folder)}.jsonl", folder / history.UNDO_FILE):
        with contextlib.suppress(FileNotFoundError):
            return read_log(path)
    return None


def _held(folder: Path) -> set[str]:
    """Ids of the faults that were to be held and are not known to be reverted, by the trial's events."""
    events = events_in(folder)
    held = {str(one.data["id"]) for one in events if one.kind is Kind.FAULT_INTENDED and one.data.get("held")}
    return held - {str(one.data.get("id")) for one in events if one.kind is Kind.FAULT_REVERTED}


def _end_words(folder: Path, log: Contents | None) -> str:
    if log is not None and (log.intents or log.kept):
        return log.end_words
    intended = any(one.kind is Kind.FAULT_INTENDED for one in events_in(folder))
    return "what was injected is reverted" if intended else Contents().end_words


def no_room(where: Path, error: OSError) -> Refusal:
    return Refusal(
        f"{where} cannot be written ({error.strerror or error})",
        "make room on the disk, or choose another folder with --out",
    )


def _why_mute(folder: Path) -> str:
    """Why a worker may have left no words: the disk takes none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        return f"; {folder} cannot be written ({error.strerror or error})"
    return ""


def _note_death(folder: Path, why: str) -> None:
    """Without this, a trial that was cut off while all was well would look as if the fault had been absorbed."""
    with contextlib.suppress(UsageError):
        trial = History.read(folder)
        if trial.of_kind(Kind.TRIAL_ABORTED):
            return  # Its watchdog has written it down, and when.
        writer = history.HistoryWriter(folder, Anchor(**trial.trial["anchor"]), "campaign")
        writer.event(Kind.TRIAL_ABORTED, folder.name, why=why)
        writer.close()

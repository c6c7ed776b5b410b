"""Replays the undo logs that trials left in the harness's home, and holds the lock under which one may inject."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import SystemClock, wait_for
from monkeyproof.errors import NotReverted, Refusal, UsageError
from monkeyproof.runtime import procfs
from monkeyproof.runtime.locks import hold_target, inherited_by_workers, sole_campaign_on
from monkeyproof.runtime.stop_file import refuse_if_stop_requested
from monkeyproof.safety.revert_one import ended_by_lease, ended_with_target, revert_one
from monkeyproof.undo.log import (
    LogHeld,
    OpenFault,
    UndoLog,
    describe_open,
    open_logs,
    read_log,
    read_open,
    undo_dir,
    unwritable,
)

__all__ = [
    "clear_to_inject",
    "forget",
    "refuse_while_open",
    "replay",
    "revert_all",
    "running_campaign",
    "sole_campaign",
    "sole_campaign_on",
]

ROOM_BYTES = 64 * 1024
"""More than an undo log takes."""
LEFT_OVER_ENDS_WITHIN_S = 10.0
"""How long a worker may take whose campaign was killed: the reaper ends it within 5 s, and it reverts."""
HELD_BRIEFLY_S = 1.0
HELD_WITHIN_S = 10.0
"""How long another process may take to replay a log, before that counts as a failure."""


def refuse_while_open() -> None:
    """Refuse to inject while a fault of an earlier trial is open.

    Raises:
        Refusal: a fault is open, or its trial still runs; names it.
    """
    _close_ended_logs()
    if left := describe_open(open_logs()):
        raise Refusal(f"after an earlier trial, {left}", "run 'monkeyproof revert' first")


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of replaying one undo log."""

    done: tuple[tuple[OpenFault, str], ...] = ()
    """Reverted faults, each with one sentence on what was done or found."""
    failed: tuple[tuple[OpenFault, str], ...] = ()
    """Faults that could not be reverted, each with why."""
    unreadable: tuple[str, ...] = ()
    """Lines of the log that cannot be understood, so that their faults are not known."""


def replay(
    path: Path,
    *,
    archive: Path | None = None,
    held_within_s: float = HELD_WITHIN_S,
    hold_targets: bool = False,
) -> ReplayResult:
    """Revert every open fault of one log, newest first, while holding the log; then delete or archive the log.

    Args:
        archive: where the log moves when nothing in it is open; None: it is deleted.
        hold_targets: whether to leave faults on a target that a campaign of another home uses at this moment:
            that campaign would take their end for the target's recovery.

    Raises:
        LogHeld: the log's trial still runs, or another process holds the log and does not finish.
    """
    done: list[tuple[OpenFault, str]] = []
    failed: list[tuple[OpenFault, str]] = []
    try:
        log = UndoLog(path, begin=False, held_within_s=held_within_s)
    except FileNotFoundError:
        return ReplayResult()  # It was closed in order, or another process has replayed it.
    except OSError:
        return ReplayResult(unreadable=read_log(path).unreadable)
    try:
        for fault in log.open_faults():
            try:
                with hold_target(Path(fault.target_file)) if hold_targets else contextlib.nullcontext():
                    summary = revert_one(fault)
                log.reverted(fault.id, summary)
                done.append((fault, summary))
            except Exception as error:  # One stuck undo must not keep the others from running.
                failed.append((fault, str(error)))
    finally:
        log.close(archive)
    return ReplayResult(tuple(done), tuple(failed), log.known.unreadable)


def revert_all(
    say: Callable[[str], None], *, dry_run: bool = False, run: str = "", hold_targets: bool = False
) -> int:
    """Revert every open fault of every log, newest first in each.

    Args:
        say: receives one line for each fault.
        dry_run: only list what is open.
        run: only faults of one trial, or of one campaign, by name.
        hold_targets: see ``replay``; for a caller that does not hold the targets already.

    Returns:
        How many faults were found.

    Raises:
        UsageError: no fault of that name is open.
        NotReverted: some could not be reverted; their logs stay, for another try.
    """
    logs = open_logs()
    if run:
        named = [log for log in logs if run == log.stem or run in _campaigns_of(log)]
        if not named:
            known = ", ".join(log.stem for log in logs) or "nothing"
            raise UsageError(f"nothing is open of a run {run!r}; open is: {known}")
        logs = named
    failed: list[str] = []
    count = 0
    for log in logs:
        if dry_run:
            for fault in read_open(log):
                count += 1
                say(f"open: {fault.fault} on {fault.subject}, injected {fault.t0_utc} ({log.stem})")
                say(f"    before: {fault.prior_text}; lease: {fault.lease_text}; undone by {fault.undo}")
            for words in read_log(log).unreadable:
                count += 1
                say(f"not known: {words}")
            continue
        try:
            found = replay(log, hold_targets=hold_targets)
        except LogHeld as error:
            count += 1
            failed.append(str(error))
            continue
        count += len(found.done) + len(found.failed) + len(found.unreadable)
        for fault, summary in found.done:
            say(f"reverted: {fault.fault} on {fault.subject}: {summary} ({log.stem})")
        failed += [f"{fault.fault} on {fault.subject}: {why} ({log.stem})" for fault, why in found.failed]
        failed += found.unreadable
    if failed:
        raise NotReverted(
            f"could not be reverted: {'; '.join(failed)}; repair the cause, then run 'monkeyproof revert'; or "
            "repair manually what 'monkeyproof revert --dry-run' shows, then run 'monkeyproof revert --forget ID'"
        )
    return count


def forget(run: str, say: Callable[[str], None]) -> None:
    """Close the log of a trial because a user states that its faults are repaired. Reverts nothing.

    Raises:
        UsageError: the trial has no open fault.
        LogHeld: the trial still runs, or another process is replaying its log.
    """
    logs = {log.stem: log for log in open_logs() if log.is_file()}
    if run not in logs:
        raise UsageError(f"nothing is open of a trial {run!r}; open is: {', '.join(logs) or 'nothing'}")
    log = UndoLog(logs[run], begin=False)
    for fault in log.open_faults():
        say(f"FORGOTTEN, not reverted: {fault.fault} on {fault.subject} (before: {fault.prior_text})")
    for words in log.known.unreadable:
        say(f"FORGOTTEN, never known: {words}")
    folder = paths.home() / "forgotten"
    folder.mkdir(exist_ok=True, mode=0o700)
    kept = folder / f"{run}-{SystemClock().utc():%Y%m%d-%H%M%S}.jsonl"
    log.forget(kept)
    say(f"Its undo log is kept in {kept}.")


def _campaigns_of(log: Path) -> set[str]:
    """Campaigns of a log: a fault's id begins with its trial's name, and the log's name ends with that name."""
    trials = {fault.id.rpartition("-")[0] for fault in read_open(log)}
    return {log.stem.removesuffix(f"-{trial}") for trial in trials}


def _close_ended_logs() -> None:
    """Close logs that no process closed, if nothing in them is open or all of it ended with the target."""
    for log in undo_dir().glob("*.jsonl"):
        contents = read_log(log)
        if not contents.unreadable and all(
            ended_with_target(Path(fault.target_file)) or ended_by_lease(fault) for fault in contents.open
        ):
            try:
                replay(log, held_within_s=HELD_BRIEFLY_S)
            except LogHeld:  # Its campaign has ended, or this one would not hold the lock.
                raise Refusal(
                    f"the trial {log.stem} of an earlier campaign still runs, or its watchdog does",
                    "it ends by itself: wait for it",
                ) from None


def running_campaign() -> str | None:
    """The pid of the campaign of this home that runs now; "?" if it is not recorded. None: there is none."""
    path = undo_dir().parent / "campaign.lock"
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _pid_in(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def sole_campaign(*, doing: str = "injecting") -> Iterator[None]:
    """Hold the lock of the only campaign of this home. The lock ends with its holder.

    Args:
        doing: what is refused while another campaign runs, for the message.

    Raises:
        Refusal: another one is running; names it.
    """
    path = undo_dir().parent / "campaign.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def locked() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:

        def free_or_running() -> bool:
            return locked() or _may_run(_pid_in(file))

        # Where the campaign has died, its worker holds the lock until it ends.
        wait_for(free_or_running, within_s=LEFT_OVER_ENDS_WITHIN_S, every_s=0.1)
        if not locked():
            holder = _pid_in(file)
            if _may_run(holder):
                why = f"another campaign is running (pid {holder})"
                raise Refusal(why, "wait for it, or end it with Ctrl-C", doing=doing)
            raise Refusal(
                f"a trial of an earlier campaign still runs, whose own process (pid {holder}) has died",
                "it ends by itself: wait for it; or end it with 'monkeyproof stop'",
                doing=doing,
            )
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid()}).encode(), 0)
        with inherited_by_workers(file):
            yield
    finally:
        os.close(file)


def _pid_in(file: int) -> str:
    """The pid of the campaign that holds this lock; "?" if it is not recorded."""
    try:
        return str(json.loads(os.pread(file, 100, 0))["pid"])
    except (ValueError, KeyError, TypeError):
        return "?"


def _may_run(holder: str) -> bool:
    """Whether a lock's holder runs, or does not say who it is."""
    return holder == "?" or (holder.isdecimal() and procfs.is_alive(int(holder)))


def refuse_unless_recorded() -> None:
    """Refuse to start if the undo log cannot be written: no fault is injected without a record.

    Raises:
        Refusal: the disk of the harness's home is full, or cannot be written.
    """
    where = paths.home() / "undo"
    try:
        undo_dir()
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(bytes(ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(where, error) from None


@contextlib.contextmanager
def clear_to_inject() -> Iterator[None]:
    """Check and hold all that injecting requires: the only campaign, and no fault left from an earlier one.

    Raises:
        Refusal: a stop was requested, another campaign runs, or a fault of an earlier trial may be open.
    """
    refuse_if_stop_requested()
    refuse_unless_recorded()
    with sole_campaign():
        refuse_while_open()
        yield

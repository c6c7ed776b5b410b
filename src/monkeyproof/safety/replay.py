"""Taking back what trials left behind: replays the undo logs that are still in the harness's home."""

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
from monkeyproof.runtime.locks import handed_on, sole_campaign_on, target_held
from monkeyproof.runtime.stop_file import refuse_if_stopped
from monkeyproof.safety.revert_one import ended_by_its_lease, gone_with_its_target, undo_one
from monkeyproof.undo.log import (
    LogHeld,
    OpenFault,
    UndoLog,
    open_logs,
    read_log,
    read_open,
    undo_dir,
    unwritable,
    words_of,
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
"""How long a worker may take whose campaign was killed: its guard ends it within five seconds, and it reverts."""
HELD_BRIEFLY_S = 1.0
HELD_WITHIN_S = 10.0
"""How long another process may take to undo what stands in a log, before that counts as a failure."""


def refuse_while_open() -> None:
    """Nothing may be injected on top of a fault that somebody left behind.

    Raises:
        Refusal: names what is open, or the trial that still runs.
    """
    _forget_what_is_over()
    if left := words_of(open_logs()):
        raise Refusal(f"after an earlier trial, {left}", "run 'monkeyproof revert' first")


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of the open faults of one log."""

    done: tuple[tuple[OpenFault, str], ...] = ()
    """Each with one sentence on how it was seen to be gone."""
    failed: tuple[tuple[OpenFault, str], ...] = ()
    """Each with why."""
    unreadable: tuple[str, ...] = ()
    """What of the log cannot be understood, so that what it stands for is not known."""


def replay(
    path: Path,
    *,
    archive: Path | None = None,
    held_within_s: float = HELD_WITHIN_S,
    hold_targets: bool = False,
) -> Replay:
    """Undo every open fault of one log, newest first, while nobody else does; then the log goes, or moves.

    Args:
        hold_targets: what is on a target that a campaign of another home breaks at this moment stays: that
            campaign would take its end for the target's recovery.

    Raises:
        LogHeld: the log's trial still runs, or somebody else is at it and does not come to an end.
    """
    done: list[tuple[OpenFault, str]] = []
    failed: list[tuple[OpenFault, str]] = []
    try:
        log = UndoLog(path, begin=False, held_within_s=held_within_s)
    except FileNotFoundError:
        return Replay()  # It was closed in order, or somebody else has done it.
    except OSError:
        return Replay(unreadable=read_log(path).unreadable)
    try:
        for fault in log.open_faults():
            try:
                with target_held(Path(fault.target_file)) if hold_targets else contextlib.nullcontext():
                    summary = undo_one(fault)
                log.reverted(fault.id, summary)
                done.append((fault, summary))
            except Exception as error:  # One stuck undo must not keep the others from running.
                failed.append((fault, str(error)))
    finally:
        log.close(archive)
    return Replay(tuple(done), tuple(failed), log.known.unreadable)


def revert_all(
    say: Callable[[str], None], *, dry_run: bool = False, run: str = "", hold_targets: bool = False
) -> int:
    """Undo every open fault of every log, newest first in each.

    Args:
        run: only those of one trial, or of one campaign, by name.
        hold_targets: as of ``replay``, for whoever does not hold their target already.

    Returns:
        How many faults were found.

    Raises:
        UsageError: nothing is open of that name.
        NotReverted: some could not be undone; their logs stay, so that it can be tried again.
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
                say(f"    before: {fault.before_words}; lease: {fault.lease_words}; undone by {fault.undo}")
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
            f"could not be reverted: {'; '.join(failed)}; mend the cause, then say 'monkeyproof revert'; or mend "
            "by hand what 'monkeyproof revert --dry-run' shows, then say 'monkeyproof revert --forget ID'"
        )
    return count


def forget(run: str, say: Callable[[str], None]) -> None:
    """Close the log of a trial on somebody's word that what stands in it is mended. Nothing is undone.

    Raises:
        UsageError: nothing is open of that trial.
        LogHeld: it still runs, or somebody is undoing it.
    """
    logs = {log.stem: log for log in open_logs() if log.is_file()}
    if run not in logs:
        raise UsageError(f"nothing is open of a trial {run!r}; open is: {', '.join(logs) or 'nothing'}")
    log = UndoLog(logs[run], begin=False)
    for fault in log.open_faults():
        say(f"FORGOTTEN, not reverted: {fault.fault} on {fault.subject} (before: {fault.before_words})")
    for words in log.known.unreadable:
        say(f"FORGOTTEN, never known: {words}")
    folder = paths.home() / "forgotten"
    folder.mkdir(exist_ok=True, mode=0o700)
    kept = folder / f"{run}-{SystemClock().utc():%Y%m%d-%H%M%S}.jsonl"
    log.forget(kept)
    say(f"What stood in its undo log is kept in {kept}.")


def _campaigns_of(log: Path) -> set[str]:
    """By what stands in a log; a fault's id begins with its trial's name, and the log's name ends with that."""
    trials = {fault.id.rpartition("-")[0] for fault in read_open(log)}
    return {log.stem.removesuffix(f"-{trial}") for trial in trials}


def _forget_what_is_over() -> None:
    """Logs of which nobody was left to close them, and in which nothing is open or all went with its target."""
    for log in undo_dir().glob("*.jsonl"):
        contents = read_log(log)
        if not contents.unreadable and all(
            gone_with_its_target(Path(fault.target_file)) or ended_by_its_lease(fault) for fault in contents.open
        ):
            try:
                replay(log, held_within_s=HELD_BRIEFLY_S)
            except LogHeld:  # Its campaign is gone, or this would not be the only one.
                raise Refusal(
                    f"the trial {log.stem} of an earlier campaign still runs, or its watchdog does",
                    "it ends by itself: wait for it",
                ) from None


def running_campaign() -> str | None:
    """The pid of the campaign that breaks things on this machine; "?" if it does not say. None: there is none."""
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
    """At most one campaign at a time breaks things on this machine. The lock dies with its holder.

    Args:
        doing: what it is that is not done while there is another, for a person.

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

        def over() -> bool:
            return locked() or _may_run(_pid_in(file))

        # Where the campaign has died, what holds it is a worker that is ending.
        wait_for(over, within_s=LEFT_OVER_ENDS_WITHIN_S, every_s=0.1)
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
        with handed_on(file):
            yield
    finally:
        os.close(file)


def _pid_in(file: int) -> str:
    """The campaign that holds this lock; "?" if it does not say."""
    try:
        return str(json.loads(os.pread(file, 100, 0))["pid"])
    except (ValueError, KeyError, TypeError):
        return "?"


def _may_run(holder: str) -> bool:
    """Whether a lock's holder runs, or does not say who it is."""
    return holder == "?" or (holder.isdecimal() and procfs.is_alive(int(holder)))


def refuse_unless_recorded() -> None:
    """Found out before anything starts: nothing is injected that is not in the undo log.

    Raises:
        Refusal: the harness's home takes nothing.
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
    """The only campaign, and nothing left from an earlier one: what has to hold before anything is broken.

    Raises:
        Refusal: everything was stopped, another campaign is running, or a fault may still be there.
    """
    refuse_if_stopped()
    refuse_unless_recorded()
    with sole_campaign():
        refuse_while_open()
        yield

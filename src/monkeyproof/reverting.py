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
from monkeyproof.errors import NotReverted, Refusal, UsageError
from monkeyproof.stopping import refuse_if_stopped
from monkeyproof.targets.opening import GONE, open_target
from monkeyproof.undo import LogHeld, OpenFault, UndoLog, open_logs, read_open, undo_dir, unwritable

ROOM_BYTES = 64 * 1024
"""More than an undo log takes."""
HELD_WITHIN_S = 10.0
"""How long another process may take to undo what stands in a log, before that counts as a failure."""


def refuse_while_open() -> None:
    """Nothing may be injected on top of a fault that somebody left behind.

    Raises:
        Refusal: names what is open.
    """
    _forget_what_is_over()
    left = [fault for log in open_logs() for fault in read_open(log)]
    if left:
        raise Refusal(
            f"{len(left)} fault{'s' if len(left) > 1 else ''} of an earlier trial may still be there "
            f"({left[0].fault} on {left[0].subject})",
            "run 'monkeyproof revert' first",
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of the open faults of one log."""

    done: tuple[tuple[OpenFault, str], ...] = ()
    """Each with one sentence on how it was seen to be gone."""
    failed: tuple[tuple[OpenFault, str], ...] = ()
    """Each with why."""


def replay(path: Path, *, archive: Path | None = None, held_within_s: float = HELD_WITHIN_S) -> Replay:
    """Undo every open fault of one log, newest first, while nobody else does; then the log goes, or moves.

    Raises:
        LogHeld: the log's trial still runs, or somebody else is at it and does not come to an end.
        UsageError: a line of the log cannot be understood.
    """
    done: list[tuple[OpenFault, str]] = []
    failed: list[tuple[OpenFault, str]] = []
    try:
        log = UndoLog(path, begin=False, held_within_s=held_within_s)
    except FileNotFoundError:
        return Replay()  # It was closed in order, or somebody else has done it.
    try:
        for fault in log.open_faults():
            try:
                summary = _undo(fault)
                log.reverted(fault.id, summary)
                done.append((fault, summary))
            except Exception as error:  # One stuck undo must not keep the others from running.
                failed.append((fault, str(error)))
    finally:
        log.close(archive)
    return Replay(tuple(done), tuple(failed))


def revert_all(say: Callable[[str], None], *, dry_run: bool = False, run: str = "") -> int:
    """Undo every open fault of every log, newest first in each.

    Args:
        run: only those of one trial, or of one campaign, by name.

    Returns:
        How many faults were found.

    Raises:
        UsageError: nothing is open of that name.
        NotReverted: some could not be undone; their logs stay, so that it can be tried again.
    """
    logs = open_logs()
    if run:
        named = [log for log in logs if log.stem == run or log.stem.startswith(f"{run}-")]
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
            continue
        try:
            found = replay(log)
        except LogHeld as error:
            count += 1
            failed.append(str(error))
            continue
        count += len(found.done) + len(found.failed)
        for fault, summary in found.done:
            say(f"reverted: {fault.fault} on {fault.subject}: {summary} ({log.stem})")
        failed += [f"{fault.fault} on {fault.subject}: {why}" for fault, why in found.failed]
    if failed:
        raise NotReverted("could not be reverted: " + "; ".join(failed))
    return count


def _undo(fault: OpenFault) -> str:
    if _gone_with_its_target(fault):
        return GONE
    target = open_target(Path(fault.target_file))
    try:
        return fault.undo.run(target)
    finally:
        target.close()


def _forget_what_is_over() -> None:
    """Logs of which nobody was left to close them, and in which nothing is open or all went with its target."""
    for log in undo_dir().glob("*.jsonl"):
        if all(_gone_with_its_target(fault) for fault in read_open(log)):
            with contextlib.suppress(LogHeld):
                replay(log, held_within_s=0.0)


def _gone_with_its_target(fault: OpenFault) -> bool:
    """The embedded target begins from its declared state each time it comes up."""
    from monkeyproof.targets.local import lifecycle

    # Not whether it answers: one that stands still has its faults yet.
    return Path(fault.target_file).parent == paths.target_dir() and not lifecycle.is_running()


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
        try:
            return str(json.loads(os.pread(file, 100, 0))["pid"])
        except (ValueError, KeyError, TypeError):
            return "?"
    finally:
        os.close(file)


@contextlib.contextmanager
def sole_campaign() -> Iterator[None]:
    """At most one campaign at a time breaks things on this machine. The lock dies with its holder.

    Raises:
        Refusal: another one is running; names it.
    """
    path = undo_dir().parent / "campaign.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(ValueError):
                holder = json.loads(os.pread(file, 100, 0) or b"{}").get("pid", "?")
                raise Refusal(
                    f"another campaign is running (pid {holder})", "wait for it, or end it with Ctrl-C"
                ) from None
            raise
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid()}).encode(), 0)
        yield
    finally:
        os.close(file)


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


@contextlib.contextmanager
def sole_campaign_on(target_file: Path) -> Iterator[None]:
    """At most one campaign at a time breaks a target, whatever homes they have. The lock dies with its holder.

    Raises:
        Refusal: another one holds the target, or whether one does cannot be known.
    """
    try:
        file = os.open(target_file, os.O_RDONLY)
    except OSError:
        yield  # Whoever reads it next says what is wrong with it.
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"another campaign, with another MONKEYPROOF_HOME, holds the target {target_file}",
                "wait for it, or end it with Ctrl-C or its own 'monkeyproof stop'; 'lslocks' names its process",
            ) from None
        except OSError as error:
            raise Refusal(
                f"{target_file} cannot be locked ({error.strerror}), so another campaign could hold the target",
                "put the target file on a disk of this machine",
            ) from None
        yield
    finally:
        os.close(file)

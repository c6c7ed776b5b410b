"""Taking back what trials left behind: replays the undo logs that are still in the harness's home."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import NotReverted, Refusal
from monkeyproof.targets.opening import open_target
from monkeyproof.undo import OpenFault, UndoLog, open_logs, read_open, undo_dir


def refuse_while_open() -> None:
    """Nothing may be injected on top of a fault that somebody left behind.

    Raises:
        Refusal: names what is open.
    """
    _forget_what_went_with_its_target()
    left = [fault for log in open_logs() for fault in read_open(log)]
    if left:
        raise Refusal(
            f"{len(left)} fault{'s' if len(left) > 1 else ''} of an earlier trial may still be there "
            f"({left[0].fault} on {left[0].subject})",
            "run 'monkeyproof revert' first",
        )


def revert_all(say: Callable[[str], None], *, dry_run: bool = False) -> int:
    """Undo every open fault of every log, newest first in each.

    Returns:
        How many faults were found.

    Raises:
        NotReverted: some could not be undone; their logs stay, so that it can be tried again.
    """
    failed: list[str] = []
    count = 0
    for log in open_logs():
        for fault in read_open(log):
            count += 1
            if dry_run:
                say(f"open: {fault.fault} on {fault.subject}, injected {fault.t0_utc} ({log.stem})")
                continue
            try:
                say(_undo(log, fault))
            except Exception as error:  # One stuck undo must not keep the others from running.
                failed.append(f"{fault.fault} on {fault.subject}: {error}")
        if not dry_run and not read_open(log):
            log.unlink()
    if failed:
        raise NotReverted("could not be reverted: " + "; ".join(failed))
    return count


def _undo(log: Path, fault: OpenFault) -> str:
    if _gone_with_its_target(fault):
        summary = f"{fault.fault} on {fault.subject}: the embedded target is down, and the fault went with it"
    else:
        target = open_target(Path(fault.target_file))
        try:
            summary = fault.undo.run(target)
        finally:
            target.close()
    writer = UndoLog(log)
    writer.reverted(fault.id, summary)
    return summary


def _forget_what_went_with_its_target() -> None:
    for log in open_logs():
        for fault in read_open(log):
            if _gone_with_its_target(fault):
                _undo(log, fault)
        if not read_open(log):
            log.unlink()


def _gone_with_its_target(fault: OpenFault) -> bool:
    """The embedded target begins from its declared state each time it comes up."""
    from monkeyproof.targets.local import lifecycle

    return Path(fault.target_file).parent == paths.target_dir() and not lifecycle.status().up


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


@contextlib.contextmanager
def clear_to_inject() -> Iterator[None]:
    """The only campaign, and nothing left from an earlier one: what has to hold before anything is broken.

    Raises:
        Refusal: another campaign is running, or a fault may still be there.
    """
    with sole_campaign():
        refuse_while_open()
        yield

"""Processes that a fault is made of: started, found again by a name chosen before, ended.

A ballast belongs to the trial's process. It ends by itself when that is gone, stands still for 5 s, or when the
longest time is over that a fault may be in force: so it is a lease of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, TargetError
from monkeyproof.injection.active import bound_s
from monkeyproof.injection.inject import current
from monkeyproof.paths import PRIVATE_UMASK, open_private
from monkeyproof.runtime import procfs
from monkeyproof.runtime.process_group import await_end, last_line
from monkeyproof.runtime.process_ref import SILENT_S, ProcessReference, words_of
from monkeyproof.targets.port import Processes as OfThisMachine
from monkeyproof.targets.port import Target, require
from monkeyproof.types import Json
from monkeyproof.undo.log import Undo

STARTS_WITHIN_S = 20.0
ENDS_WITHIN_S = 3.0
_MODULE = b"monkeyproof.faults.support.stressors."
_started: dict[str, list[subprocess.Popen[bytes]]] = {}
"""Of this process, so that it can reap them."""


def new_id(kind: str) -> str:
    """Chosen before the process exists, so that the undo is on disk first."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def start(
    program: str, ballast_id: str, arguments: Sequence[str], *, within_s: float = STARTS_WITHIN_S
) -> Mapping[str, Json]:
    """Start ``monkeyproof.faults.support.stressors.PROGRAM``; returns what it said when it had begun.

    Raises:
        TargetError: it cannot do it; in its own words.
    """
    context = current()
    longest_s = bound_s(context.target.file.windows, context.active_faults.hold_at_most_s)
    log = context.folder / f"{ballast_id}.log"
    with open_private(log, append=True) as errors:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", f"{_MODULE.decode()}{program}"),
                *("--id", ballast_id, "--owner", words_of(os.getpid()), "--for-s", f"{longest_s:g}"),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )
    _started.setdefault(ballast_id, []).append(child)
    try:
        said = _first_line(child, within_s)
    finally:
        if child.stdout is not None:
            child.stdout.close()
    with contextlib.suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()
    if said is None:
        raise TargetError(f"the ballast {ballast_id} did not begin: {last_line(log)}")
    if "error" in said:
        raise TargetError(str(said["error"]))
    return said


def pids(ballast_id: str) -> list[int]:
    """Processes of that name which live."""
    wanted, found = os.fsencode(ballast_id), []
    for pid in procfs.living():
        words = procfs.words_of(pid)
        if wanted in words and any(word.startswith(_MODULE) for word in words):
            found.append(pid)
    return sorted(found)


def why_ended(ballast_id: str, count: int = 1) -> Callable[[], str]:
    """For ``Injection.why_gone``."""

    def why() -> str:
        if (living := len(pids(ballast_id))) >= count:
            return ""
        ended = f"{count - living} of {count} processes of the fault have ended"
        return f"{ended}: somebody ended them, or the harness stood still for {SILENT_S:g} s"

    return why


def undo(ballast_id: str, what: str) -> Undo:
    return Undo("monkeyproof.faults.support.stressor:end", {"ballast": ballast_id, "what": what})


def end(target: Target, ballast: str, what: str) -> str:  # noqa: ARG001
    """Undo: end what carries that name. Idempotent.

    Raises:
        TargetError: something of it does not end.
    """
    table = procfs.living()
    found = [ProcessReference(f"{pid}:{table[pid].started}") for pid in pids(ballast) if pid in table]
    for one in found:
        one.send(signal.SIGTERM)
        one.send(signal.SIGCONT)
    ends_s = time.monotonic() + ENDS_WITHIN_S
    for one in found:
        if not one.is_gone(within_s=max(0.0, ends_s - time.monotonic())):
            one.send(signal.SIGKILL)
    for child in _started.pop(ballast, []):
        await_end(child, within_s=1.0)
    if not wait_for(lambda: not pids(ballast), within_s=1.0):
        raise TargetError(f"{what}: pid {pids(ballast)[0]} does not end; try: kill -9 {pids(ballast)[0]}")
    return f"{what}: ended" if found else f"{what}: had ended already"


def require_this_machine(target: Target, what: str) -> Sequence[int]:
    """Processes from which the target descends.

    Raises:
        Refusal: it does not run on this machine, so that nothing here would break it.
    """
    if target.find(OfThisMachine) is None:
        raise Refusal(
            f"{what} is done to this machine, and target {target.file.name!r} is not known to run on it",
            "break a target that runs here, such as the embedded one, or choose another fault",
        )
    return require(target, OfThisMachine).roots()


def _first_line(child: subprocess.Popen[bytes], within_s: float) -> dict[str, Json] | None:
    assert child.stdout is not None
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN | select.POLLHUP)
    ends_s, text = time.monotonic() + within_s, b""
    while b"\n" not in text and (left_s := ends_s - time.monotonic()) > 0:
        if poll.poll(left_s * 1000.0):
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                return None
            text += chunk
    try:
        said = json.loads(text.partition(b"\n")[0])
    except ValueError:
        return None
    return said if isinstance(said, dict) else None

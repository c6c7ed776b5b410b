"""Starts, finds and ends stressors: the processes of ``support/stressors`` that are the substance of a fault.

A stressor belongs to the trial's process, and is a lease of its own: it exits when that process has ended, when it
has been stopped for 5 s, or when the longest time is over for which a fault may be in force.
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
from monkeyproof.runtime.process_group import await_end, last_log_line
from monkeyproof.runtime.process_ref import SILENT_S, ProcessReference, reference_text
from monkeyproof.targets.port import Processes as OfThisMachine
from monkeyproof.targets.port import Target, require
from monkeyproof.types import Json
from monkeyproof.undo.log import Undo

STARTS_WITHIN_S = 20.0
ENDS_WITHIN_S = 3.0
_MODULE = b"monkeyproof.faults.support.stressors."
_started: dict[str, list[subprocess.Popen[bytes]]] = {}
"""Children of this process, which it has to reap, by stressor id."""


def new_id(kind: str) -> str:
    """An id for a stressor. It is chosen before the process exists, so that the undo is on disk first."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def start(
    program: str, stressor_id: str, arguments: Sequence[str], *, within_s: float = STARTS_WITHIN_S
) -> Mapping[str, Json]:
    """Start ``monkeyproof.faults.support.stressors.PROGRAM``; returns its first report.

    Raises:
        TargetError: it did not start, or reported an error.
    """
    context = current()
    longest_s = bound_s(context.target.file.windows, context.active_faults.hold_at_most_s)
    log = context.folder / f"{stressor_id}.log"
    with open_private(log, append=True) as errors:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", f"{_MODULE.decode()}{program}"),
                *("--id", stressor_id, "--owner", reference_text(os.getpid()), "--for-s", f"{longest_s:g}"),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )
    _started.setdefault(stressor_id, []).append(child)
    try:
        report = _first_report(child, within_s)
    finally:
        if child.stdout is not None:
            child.stdout.close()
    with contextlib.suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()
    if report is None:
        raise TargetError(f"the stressor {stressor_id} did not start: {last_log_line(log)}")
    if "error" in report:
        raise TargetError(str(report["error"]))
    return report


def pids(stressor_id: str) -> list[int]:
    """Living processes of a stressor, in ascending order."""
    wanted, found = os.fsencode(stressor_id), []
    for pid in procfs.living():
        words = procfs.command_line(pid)
        if wanted in words and any(word.startswith(_MODULE) for word in words):
            found.append(pid)
    return sorted(found)


def why_ended(stressor_id: str, count: int = 1) -> Callable[[], str]:
    """A check for ``Injection.why_ended``: whether fewer than ``count`` processes of the stressor live."""

    def why() -> str:
        if (living := len(pids(stressor_id))) >= count:
            return ""
        ended = f"{count - living} of {count} processes of the fault have ended"
        return f"{ended}: another process ended them, or the harness was stopped for {SILENT_S:g} s"

    return why


def undo(stressor_id: str, what: str) -> Undo:
    """The undo that ends a stressor. ``what``: its name in messages."""
    return Undo("monkeyproof.faults.support.stressor:end", {"stressor_id": stressor_id, "what": what})


def end(target: Target, stressor_id: str, what: str) -> str:  # noqa: ARG001
    """Undo: end every process of a stressor. Idempotent.

    Raises:
        TargetError: one of them does not end.
    """
    table = procfs.living()
    found = [ProcessReference(f"{pid}:{table[pid].started_ticks}") for pid in pids(stressor_id) if pid in table]
    for one in found:
        one.send_signal(signal.SIGTERM)
        one.send_signal(signal.SIGCONT)
    ends_s = time.monotonic() + ENDS_WITHIN_S
    for one in found:
        if not one.has_ended(within_s=max(0.0, ends_s - time.monotonic())):
            one.send_signal(signal.SIGKILL)
    for child in _started.pop(stressor_id, []):
        await_end(child, within_s=1.0)
    if not wait_for(lambda: not pids(stressor_id), within_s=1.0):
        raise TargetError(f"{what}: pid {pids(stressor_id)[0]} does not end; try: kill -9 {pids(stressor_id)[0]}")
    return f"{what}: ended" if found else f"{what}: had ended already"


def require_this_machine(target: Target, what: str) -> Sequence[int]:
    """Pids of the processes from which the target's descend.

    Raises:
        Refusal: the target does not run on this machine, so that the fault would not reach it.
    """
    if target.find(OfThisMachine) is None:
        raise Refusal(
            f"{what} acts on this machine, and target {target.file.name!r} is not known to run on it",
            "break a target that runs here, such as the embedded one, or choose another fault",
        )
    return require(target, OfThisMachine).roots()


def _first_report(child: subprocess.Popen[bytes], within_s: float) -> dict[str, Json] | None:
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
        report = json.loads(text.partition(b"\n")[0])
    except ValueError:
        return None
    return report if isinstance(report, dict) else None

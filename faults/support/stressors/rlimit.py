"""Lowers a resource limit of another process, and restores it when its monitor ends it.

    python -m monkeyproof.faults.support.stressors.rlimit --id ID --owner PID:STARTED --for-s S \
        --process PID:STARTED --kind open_files --to 12

It moves the soft limit alone: a user may lower and raise that of own processes without any privilege.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

from monkeyproof.faults.support.stressors.parent_monitor import (
    ParentDeathMonitor,
    exit_now,
    parse_arguments,
    report,
    stressor_parser,
)
from monkeyproof.runtime.process_ref import ProcessReference

KINDS = {
    "address_space": resource.RLIMIT_AS,
    "open_files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
}
"""Names of the limits, and their numbers."""


def limits_of(pid: int, kind: str) -> tuple[int, int]:
    """Soft and hard limit; -1 is none.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: the process belongs to another user.
    """
    return resource.prlimit(pid, KINDS[kind])


def restore_soft_limit(process: ProcessReference, kind: str, lowered: int, before: int) -> str:
    """Restore a soft limit if it is still the lowered one.

    Returns:
        ``ended`` for the process, ``restored``, ``unchanged`` if it was as before already, or ``changed to N``.
    """
    if process.has_ended():
        return "ended"
    try:
        soft, hard = limits_of(process.pid, kind)
        if soft != lowered:
            return "unchanged" if soft == before else f"changed to {soft}"
        resource.prlimit(process.pid, KINDS[kind], (before, hard))
    except ProcessLookupError:
        return "ended"
    return "restored"


def main(argv: Sequence[str] | None = None) -> None:
    found = stressor_parser(
        "monkeyproof.faults.support.stressors.rlimit", "Lower a limit of a process for a while."
    )
    found.add_argument("--process", type=ProcessReference, required=True)
    found.add_argument("--kind", choices=sorted(KINDS), required=True)
    found.add_argument("--to", type=int, required=True)
    arguments = parse_arguments(found, argv)
    monitor = ParentDeathMonitor(arguments.owner, arguments.for_s)
    try:
        before, hard = limits_of(arguments.process.pid, arguments.kind)
        if arguments.process.has_ended():
            raise ProcessLookupError
        resource.prlimit(arguments.process.pid, KINDS[arguments.kind], (arguments.to, hard))
    except (OSError, ValueError) as error:
        report(
            error=f"the limit of pid {arguments.process.pid} cannot be lowered: {error or 'the process has ended'}"
        )
        exit_now()
    report(before=before, lowered=arguments.to)
    monitor.wait()
    restore_soft_limit(arguments.process, arguments.kind, arguments.to, before)
    exit_now()


if __name__ == "__main__":
    main()

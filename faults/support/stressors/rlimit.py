"""Lowers a resource limit of another process, and puts it back when its tether ends.

    python -m monkeyproof.faults.support.stressors.rlimit --id ID --owner PID:STARTED --for-s S \
        --victim PID:STARTED --kind open_files --to 12

Only the soft limit is moved, which whoever runs both processes may do, and undo, without any privilege.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

from monkeyproof.faults.support.stressors.parent_monitor import ParentDeathMonitor, leave, parse, parser, say
from monkeyproof.runtime.process_ref import ProcessReference

KINDS = {
    "address_space": resource.RLIMIT_AS,
    "open_files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
}
"""Names of the limits, and their numbers."""


def limits_of(pid: int, kind: str) -> tuple[int, int]:
    """Soft and hard; -1 is none.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: it is somebody else's.
    """
    return resource.prlimit(pid, KINDS[kind])


def put_back(victim: ProcessReference, kind: str, lowered: int, before: int) -> str:
    """Put a soft limit back, if it is still the lowered one; says what was found."""
    if victim.has_ended():
        return "gone"
    try:
        soft, hard = limits_of(victim.pid, kind)
        if soft != lowered:
            return "back" if soft == before else f"changed to {soft}"
        resource.prlimit(victim.pid, KINDS[kind], (before, hard))
    except ProcessLookupError:
        return "gone"
    return "put back"


def main(argv: Sequence[str] | None = None) -> None:
    found = parser("monkeyproof.faults.support.stressors.rlimit", "Lower a limit of a process for a while.")
    found.add_argument("--victim", type=ProcessReference, required=True)
    found.add_argument("--kind", choices=sorted(KINDS), required=True)
    found.add_argument("--to", type=int, required=True)
    arguments = parse(found, argv)
    tether = ParentDeathMonitor(arguments.owner, arguments.for_s)
    try:
        before, hard = limits_of(arguments.victim.pid, arguments.kind)
        if arguments.victim.has_ended():
            raise ProcessLookupError
        resource.prlimit(arguments.victim.pid, KINDS[arguments.kind], (arguments.to, hard))
    except (OSError, ValueError) as error:
        say(error=f"the limit of pid {arguments.victim.pid} cannot be lowered: {error or 'it is gone'}")
        leave()
    say(before=before, lowered=arguments.to)
    tether.wait()
    put_back(arguments.victim, arguments.kind, arguments.to, before)
    leave()


if __name__ == "__main__":
    main()

"""A process that reaches the limit of its memory, its handles or its disk: the limit comes to the process.

Nothing of the machine is used up, so nobody else is hurt: the kernel refuses one process what a full machine would
refuse to all. Only soft limits of one process are moved, and never raised above what they were.
"""

from __future__ import annotations

import http.client
import resource
import signal
from collections.abc import Callable
from urllib.parse import urlsplit

from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between, check_count
from monkeyproof.faults.support.replica_choice import any_replica, choose, prior
from monkeyproof.faults.support.stressors.rlimit import KINDS, limits_of, put_back
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.runtime import procfs
from monkeyproof.runtime.process_ref import ProcessReference, reference_text
from monkeyproof.targets.port import LEASE_S, Processes, Replica, Replicas, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

MIB = 1024 * 1024
MOST_SPARE_MIB = 1024.0
MOST_SPARE = 1000
"""Whoever has more left than that lacks nothing."""
FRESH_WITHIN_S = 0.5


@fault(
    needs=(Replicas, Processes),
    evidence="its limit is lowered to what it has and the spare, both read from the kernel",
    undo="the old limit is set again; by itself when the harness is gone",
    healing="restart the replica: the next one has its old limit",
    draw=any_replica,
)
def exhaust_memory(name: str = "", spare_mib: float = 0.0) -> dict[str, Json]:
    """Leave one replica ``spare_mib`` of memory beyond what it has: what needs more is refused.

    The limit on its address space (RLIMIT_AS) is lowered to what it uses. What it has, it keeps, so that it may go
    on for as long as it needs no more; it is not killed, as a container that runs out of memory would be.
    """
    check_between("spare_mib", spare_mib, 0.0, MOST_SPARE_MIB)

    def lowered(pid: int) -> int:
        return procfs.address_space_bytes(pid) + int(spare_mib * MIB)

    def evidence(_: Replica, pid: int, limit: int) -> Evidence | None:
        used = procfs.address_space_bytes(pid)
        spare = max(0.0, (limit - used) / MIB)
        return Evidence(
            f"which leaves {spare:.1f} MiB beyond the {used / MIB:.0f} that it has",
            {"pid": pid, "limit_bytes": limit, "used_bytes": used},
        )

    return _limit("exhaust_memory", "address_space", name, {"spare_mib": float(spare_mib)}, lowered, evidence)


@fault(
    needs=(Replicas, Processes),
    evidence="its limit is lowered, read from the kernel; with no handle to spare, it answers no new connection",
    undo="the old limit is set again; by itself when the harness is gone",
    healing="restart the replica, or send its traffic elsewhere",
    draw=any_replica,
)
def exhaust_handles(name: str = "", spare: int = 0) -> dict[str, Json]:
    """Leave one replica ``spare`` file handles: what would open a file or take a connection beyond that fails.

    Connections that stand go on, and a handle that is closed may be used again, so that users who keep their
    connections notice nothing at first.
    """
    check_count("spare", spare, 0, MOST_SPARE)

    def lowered(pid: int) -> int:
        used = procfs.open_descriptors(pid)
        limit, free = 0, 0
        while free < spare or limit in used:
            free += limit not in used
            limit += 1
        return limit

    def evidence(victim: Replica, pid: int, limit: int) -> Evidence | None:
        used = procfs.open_descriptors(pid)
        free = limit - len([number for number in used if number < limit])
        answered = "" if spare or not victim.metrics_url else _fresh_connection(victim.metrics_url)
        if answered is None:
            return None
        return Evidence(
            f"which leaves {free} handles beyond the {len(used)} that are open{answered}",
            {"pid": pid, "open": len(used), "free": free, "limit": limit},
        )

    return _limit("exhaust_handles", "open_files", name, {"spare": spare}, lowered, evidence)


@fault(
    needs=(Replicas, Processes),
    evidence="the limit on the size of its files is lowered, read from the kernel",
    undo="the old limit is set again; by itself when the harness is gone",
    healing="none while what is in memory suffices; a new model cannot be fetched",
    draw=any_replica,
)
def fill_disk(name: str = "", most_kib: float = 0.0) -> dict[str, Json]:
    """Have what one replica writes to files fail, as on a full disk, beyond ``most_kib`` a file.

    No disk is filled: the limit on the size of its files (RLIMIT_FSIZE) is lowered. So the error that it sees is
    "file too large" (EFBIG), where a full disk says "no space left" (ENOSPC). Sockets and pipes are not concerned.
    Refused for a process that such a write would kill (it neither handles nor ignores SIGXFSZ; Python ignores it).
    """
    check_between("most_kib", most_kib, 0.0, 1024.0 * 1024.0)

    def lowered(pid: int) -> int:
        if not procfs.expects_signal(pid, signal.SIGXFSZ):
            raise Refusal(
                f"pid {pid} would be killed by its next write (SIGXFSZ), which no full disk does",
                "choose a process that ignores that signal, such as any in Python",
            )
        return int(most_kib * 1024)

    def evidence(_: Replica, pid: int, limit: int) -> Evidence | None:
        return Evidence("beyond which no file may grow", {"pid": pid, "limit": limit})

    return _limit("fill_disk", "file_size", name, {"most_kib": float(most_kib)}, lowered, evidence)


def restore_limit(target: Target, ballast_id: str, victim: str, kind: str, lowered: int, before: int) -> str:
    """Undo of all three. Idempotent; leaves a limit alone that somebody else set since, and a replaced process."""
    process, what = ProcessReference(victim), f"limit {kind} of pid {victim.partition(':')[0]}"
    stressor.end(target, ballast_id, what)  # Which puts it back itself, if it was still there.
    try:
        found = put_back(process, kind, lowered, before)
    except PermissionError:
        raise TargetError(f"{what}: belongs to another user") from None
    words = {
        "gone": "the process is gone, and its limit with it",
        "back": "is as it was",
        "put back": "is as it was",
    }
    return f"{what}: {words.get(found, f'somebody {found} since, which is left')}"


def _limit(
    fault_name: str,
    kind: str,
    name: str,
    parameters: dict[str, Json],
    lowered: Callable[[int], int],
    evidence: Callable[[Replica, int, int], Evidence | None],
) -> dict[str, Json]:
    """Lower one limit of one replica, for as long as the fault is held.

    Args:
        lowered: the new limit of a process; one that would limit nothing is refused.
        evidence: what the lowered limit leaves.
    """
    target = current().target
    replicas = require(target, Replicas)
    victim = choose(replicas, name, f"resources.{fault_name}")
    pid = _pid_here(target, victim)
    try:
        before, hard = limits_of(pid, kind)
        to = lowered(pid)
        if before != resource.RLIM_INFINITY and to >= before:
            raise Refusal(
                f"{victim.name} has a limit {kind} of {before} already: {to} would limit nothing",
                "ask for less, or take back what set it",
            )
        resource.prlimit(pid, KINDS[kind], (before, hard))  # Whether we may, before anything is on record.
    except ProcessLookupError:
        raise Refusal(f"{victim.name} has just ended (pid {pid})", "wait until it is restarted") from None
    except PermissionError:
        raise Refusal(
            f"the limits of pid {pid} may not be changed: it is another user's", "run as the user who owns it"
        ) from None
    ballast_id, process = stressor.new_id(kind), reference_text(pid)
    gone = ProcessReference(process)

    def apply() -> None:
        stressor.start("rlimit", ballast_id, ["--victim", process, "--kind", kind, "--to", str(to)])

    def proven(_: object) -> Evidence | None:
        try:
            leaves = evidence(victim, pid, to) if limits_of(pid, kind)[0] == to else None
        except OSError:
            return None
        if leaves is None:
            return None
        was = "none" if before == resource.RLIM_INFINITY else str(before)
        return Evidence(
            f"{victim.name}: limit {kind} of pid {pid} lowered from {was} to {to}, {leaves.summary}",
            {**leaves.data, "before": before},
        )

    def why_gone() -> str:
        # One that died, and was started anew, has lost the limit by what the limit did.
        if gone.has_ended() or limits_of(pid, kind)[0] == to:
            return ""
        return f"the limit {kind} of {victim.name} is not the one that was set"

    arguments = {"victim": process, "kind": kind, "lowered": to, "before": before}
    return inject(
        Injection(
            fault=f"resources.{fault_name}",
            subject=victim.name,
            parameters={"name": victim.name, "asked_for": name, **parameters},
            apply=apply,
            evidence=proven,
            undo=Undo("monkeyproof.faults.resources:restore_limit", {"ballast_id": ballast_id, **arguments}),
            prior={**prior(victim), "limit": before},
            lease_s=LEASE_S,
            why_gone=why_gone,
        )
    )


def _pid_here(target: Target, victim: Replica) -> int:
    """The replica's process, if it is one of this machine.

    Raises:
        Refusal: it is not, so that its number may be a stranger's here.
    """
    roots = stressor.require_this_machine(target, "this fault")
    if victim.pid is None or victim.pid not in procfs.with_descendants(roots, procfs.living()):
        raise Refusal(
            f"{victim.name} is no process of this machine that descends from the target's",
            "break a target that runs here, such as the embedded one",
        )
    return victim.pid


def _fresh_connection(url: str) -> str | None:
    """Ask over a connection of our own: how it failed, in words; None if it was answered."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=FRESH_WITHIN_S)
    try:
        connection.request("GET", parts.path or "/")
        connection.getresponse().read()
    except TimeoutError:
        return "; a connection of our own was not answered"
    except (OSError, http.client.HTTPException) as error:
        return f"; a connection of our own failed ({type(error).__name__})"
    finally:
        connection.close()
    return None

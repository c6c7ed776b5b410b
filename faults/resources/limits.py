"""A process reaches the limit of its memory, its handles or its disk, because its limit is lowered.

Nothing of the machine is used up, so no other process is affected: the kernel refuses to one process what a full
machine would refuse to all. Only soft limits of one process are lowered; none is raised above its old value.
"""

from __future__ import annotations

import http.client
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between, check_count
from monkeyproof.faults.support.replica_choice import any_replica, choose_replica, prior_state
from monkeyproof.faults.support.stressors.rlimit import KINDS, limits_of, restore_soft_limit
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
"""A process that has more left than that lacks nothing."""
FRESH_WITHIN_S = 0.5


@fault(
    needs=(Replicas, Processes),
    evidence="the kernel reports that its limit is lowered to what it uses and the spare",
    undo="the stressor restores the old limit; by itself when the harness has ended",
    healing="restart the replica: its next process has the old limit",
    draw=any_replica,
)
def exhaust_memory(name: str = "", spare_mib: float = 0.0) -> dict[str, Json]:
    """Leave one replica ``spare_mib`` of memory beyond what it uses; the kernel refuses it more.

    The limit on its address space (RLIMIT_AS) is lowered to what it uses. It keeps what it has, and may go on for
    as long as it needs no more; it is not killed, as a container that runs out of memory would be.
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
    evidence="the kernel reports the lowered limit; with no handle to spare, it answers no new connection",
    undo="the stressor restores the old limit; by itself when the harness has ended",
    healing="restart the replica, or send its traffic elsewhere",
    draw=any_replica,
)
def exhaust_handles(name: str = "", spare: int = 0) -> dict[str, Json]:
    """Leave one replica ``spare`` file handles; it can open no more files and accept no more connections.

    Open connections go on, and a closed handle may be used again, so that users who keep their connections notice
    nothing at first.
    """
    check_count("spare", spare, 0, MOST_SPARE)

    def lowered(pid: int) -> int:
        used = procfs.open_descriptors(pid)
        limit, free = 0, 0
        while free < spare or limit in used:
            free += limit not in used
            limit += 1
        return limit

    def evidence(replica: Replica, pid: int, limit: int) -> Evidence | None:
        used = procfs.open_descriptors(pid)
        free = limit - len([number for number in used if number < limit])
        answered = "" if spare or not replica.metrics_url else _fresh_connection(replica.metrics_url)
        if answered is None:
            return None
        return Evidence(
            f"which leaves {free} handles beyond the {len(used)} that are open{answered}",
            {"pid": pid, "open": len(used), "free": free, "limit": limit},
        )

    return _limit("exhaust_handles", "open_files", name, {"spare": spare}, lowered, evidence)


@fault(
    needs=(Replicas, Processes),
    evidence="the kernel reports the lowered limit on the size of its files",
    undo="the stressor restores the old limit; by itself when the harness has ended",
    healing="none while what is in memory suffices; a new model cannot be fetched",
    draw=any_replica,
)
def fill_disk(name: str = "", most_kib: float = 0.0) -> dict[str, Json]:
    """Make writes of one replica to files fail beyond ``most_kib`` a file, as on a full disk.

    No disk is filled: the limit on the size of its files (RLIMIT_FSIZE) is lowered. So the error that it sees is
    "file too large" (EFBIG), where a full disk gives "no space left" (ENOSPC). Sockets and pipes are not affected.
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


def restore_limit(target: Target, stressor_id: str, process: str, kind: str, lowered: int, before: int) -> str:
    """Undo of all three. Idempotent; leaves a limit that another program set since, and a replaced process."""
    what = f"limit {kind} of pid {process.partition(':')[0]}"
    stressor.end(target, stressor_id, what)  # It restores the limit itself, if it still runs.
    try:
        found = restore_soft_limit(ProcessReference(process), kind, lowered, before)
    except PermissionError:
        raise TargetError(f"{what}: belongs to another user") from None
    words = {
        "ended": "the process has ended, and its limit with it",
        "unchanged": "is as it was",
        "restored": "is as it was",
    }
    return f"{what}: {words.get(found, f'another program {found} since, which is left as it is')}"


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
    replica = choose_replica(require(target, Replicas), name, f"resources.{fault_name}")
    limit = _choose_limit(replica, _pid_here(target, replica), kind, lowered)
    stressor_id = stressor.new_id(kind)
    arguments = {"process": limit.process, "kind": kind, "lowered": limit.lowered, "before": limit.before}
    options = ["--process", limit.process, "--kind", kind, "--to", str(limit.lowered)]

    def proven(_: object) -> Evidence | None:
        try:
            leaves = evidence(replica, limit.pid, limit.lowered) if limit.is_in_force() else None
        except OSError:
            return None
        if leaves is None:
            return None
        was = "none" if limit.before == resource.RLIM_INFINITY else str(limit.before)
        return Evidence(
            f"{replica.name}: limit {kind} of pid {limit.pid} lowered from {was} to {limit.lowered}, "
            f"{leaves.summary}",
            {**leaves.data, "before": limit.before},
        )

    def why_ended() -> str:
        # A process that died, and was replaced, lost the limit because of the limit.
        if ProcessReference(limit.process).has_ended() or limit.is_in_force():
            return ""
        return f"the limit {kind} of {replica.name} is not the one that was set"

    return inject(
        Injection(
            fault=f"resources.{fault_name}",
            subject=replica.name,
            parameters={"name": replica.name, "asked_for": name, **parameters},
            apply=lambda: stressor.start("rlimit", stressor_id, options),
            evidence=proven,
            undo=Undo(
                "monkeyproof.faults.resources.limits:restore_limit", {"stressor_id": stressor_id, **arguments}
            ),
            prior={**prior_state(replica), "limit": limit.before},
            lease_s=LEASE_S,
            why_ended=why_ended,
        )
    )


@dataclass(frozen=True, slots=True)
class _LimitChange:
    """One limit of one process: what it is and what it becomes."""

    kind: str
    pid: int
    process: str
    """The process as ``PID:STARTED``, which no later process shares."""
    before: int
    lowered: int

    def is_in_force(self) -> bool:
        """Whether the limit is the lowered one. Raises OSError if the process cannot be asked."""
        return limits_of(self.pid, self.kind)[0] == self.lowered


def _choose_limit(replica: Replica, pid: int, kind: str, lowered: Callable[[int], int]) -> _LimitChange:
    """What will be changed; nothing is changed yet.

    Raises:
        Refusal: it would limit nothing, the process has ended, or it belongs to another user.
    """
    try:
        before, hard = limits_of(pid, kind)
        to = lowered(pid)
        if before != resource.RLIM_INFINITY and to >= before:
            raise Refusal(
                f"{replica.name} has a limit {kind} of {before} already: {to} would limit nothing",
                "ask for less, or undo what set it",
            )
        # Sets what is set: this shows whether we may, before the fault is on record.
        resource.prlimit(pid, KINDS[kind], (before, hard))
        return _LimitChange(kind, pid, reference_text(pid), before, to)
    except ProcessLookupError:
        raise Refusal(f"{replica.name} has just ended (pid {pid})", "wait until it is restarted") from None
    except PermissionError:
        raise Refusal(
            f"the limits of pid {pid} may not be changed: it is another user's", "run as the user who owns it"
        ) from None


def _pid_here(target: Target, replica: Replica) -> int:
    """The pid of the replica's process, if it runs on this machine.

    Raises:
        Refusal: it does not, so that its pid may be another process's here.
    """
    roots = stressor.require_this_machine(target, "this fault")
    if replica.pid is None or replica.pid not in procfs.with_descendants(roots, procfs.living()):
        raise Refusal(
            f"{replica.name} is no process of this machine that descends from the target's",
            "break a target that runs here, such as the embedded one",
        )
    return replica.pid


def _fresh_connection(url: str) -> str | None:
    """Ask over a new connection: how it failed, as the end of a sentence; None if it was answered."""
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

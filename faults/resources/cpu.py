"""Busy processes beside the target take its processor time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from monkeyproof.errors import UsageError
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between, check_count
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.runtime import procfs
from monkeyproof.targets.port import LEASE_S, Processes, Replicas, Target
from monkeyproof.types import Evidence, Json

WORKERS_MOST = 64
PROVEN_AFTER_S = 0.5
EVIDENCE_SHARE_MIN = 0.8
"""Of the time that the workers ask for: they are interrupted, and check their monitor."""


@dataclass(frozen=True, slots=True)
class _SchedulerTimes:
    """What the scheduler reports of some processes together, in seconds."""

    on_cpu_s: float
    waited_s: float
    """Runnable, while other processes ran."""


@fault(
    needs=(Processes,),
    evidence="its own processes were on a processor, or waiting for one, for that share of the time",
    undo="the stressor's processes are ended; by themselves when the harness has ended or their time is over",
    healing="more machines, or fewer requests; a restart does not help",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"workers": 1, "busy_share": round(max(0.1, 0.9 * intensity), 2), "nice": 0} if target.stack else None
    ),
)
def steal_cpu(workers: int = 1, busy_share: float = 0.9, nice: int = 0, cores: str = "") -> dict[str, Json]:
    """Keep ``workers`` processes busy on this machine, each for ``busy_share`` of the time.

    They run beside everything that runs here, this harness included; ``cores`` ("0", "0,1"; "" for all) and
    ``nice`` (0 to 19) limit what they take. Where they make the prober late, the trial reports it.
    """
    check_count("workers", workers, 1, WORKERS_MOST)
    check_between("busy_share", busy_share, 0.0, 1.0, above=True)
    check_count("nice", nice, 0, 19)
    only = _cores(cores)
    context = current()
    stressor.require_this_machine(context.target, "CPU steal")
    stressor_id = stressor.new_id("cpu")
    arguments = ["--busy-share", f"{busy_share:g}", "--nice", str(nice), "--cores", ",".join(map(str, only))]
    replicas = _replica_pids(context.target)
    began: dict[str, tuple[float, _SchedulerTimes, _SchedulerTimes]] = {}

    def apply() -> None:
        for _ in range(workers):
            stressor.start("cpu", stressor_id, arguments)
        began[""] = (
            context.clock.monotonic_s(),
            _scheduler_times(stressor.pids(stressor_id)),
            _scheduler_times(replicas),
        )

    def evidence(_: object) -> Evidence | None:
        since_s, own, theirs = began[""]
        for_s = context.clock.monotonic_s() - since_s
        running = stressor.pids(stressor_id)
        now, waits_s = _scheduler_times(running), _scheduler_times(replicas).waited_s - theirs.waited_s
        used_s, waited_s = now.on_cpu_s - own.on_cpu_s, now.waited_s - own.waited_s
        if for_s < PROVEN_AFTER_S or len(running) < workers or used_s <= 0:
            return None
        if used_s + waited_s < EVIDENCE_SHARE_MIN * workers * busy_share * for_s:
            return None
        return Evidence(
            f"{workers} busy process{'es' if workers > 1 else ''} had {used_s / for_s:.2f} of a processor and "
            f"waited for {waited_s / for_s:.2f} more; replicas waited {1000 * waits_s / for_s:.0f} ms a second",
            {
                "pids": running,
                "cores_used": round(used_s / for_s, 3),
                "cores_waited_for": round(waited_s / for_s, 3),
                "replicas_waited_ms_per_s": round(1000 * waits_s / for_s, 2),
            },
        )

    return inject(
        Injection(
            fault="resources.steal_cpu",
            subject="this machine",
            parameters={"workers": workers, "busy_share": float(busy_share), "nice": nice, "cores": cores},
            apply=apply,
            evidence=evidence,
            undo=stressor.undo(stressor_id, "the busy processes"),
            evidence_within_s=10.0,
            prior={"load_average": os.getloadavg()[0]},
            lease_s=LEASE_S,
            why_ended=stressor.why_ended(stressor_id, workers),
        )
    )


def _cores(text: str) -> list[int]:
    """Raises UsageError: it names none, or one that this process may not use."""
    if not text:
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", str(text)):
        raise UsageError(f"cores: {text!r} is no list of numbers, such as 0 or 0,1")
    found = sorted({int(one) for one in str(text).split(",")})
    if missing := sorted(set(found) - set(allowed)):
        raise UsageError(f"cores: there is no core {missing[0]}; there are {', '.join(map(str, allowed))}")
    return found


def _replica_pids(target: Target) -> list[int]:
    replicas = target.find(Replicas)
    return [one.pid for one in replicas.list() if one.pid is not None] if replicas is not None else []


def _scheduler_times(pids: list[int]) -> _SchedulerTimes:
    """Times of all threads of the processes that still live."""
    times = [procfs.cpu_times_ns(pid) for pid in pids]
    return _SchedulerTimes(sum(ran for ran, _ in times) / 1e9, sum(waited for _, waited in times) / 1e9)

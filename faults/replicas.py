"""Faults of scoring processes: killed, paused, slow to start, preempted, scaled to zero."""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support.checks import check_between
from monkeyproof.faults.support.replica_choice import (
    any_replica,
    choose_replica,
    is_running,
    prior_state,
    replica_named,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject, within_limit
from monkeyproof.runtime import procfs
from monkeyproof.targets.port import LEASE_S, Replica, Replicas, StartCondition, Starts, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

__all__ = ["delay_start", "kill", "pause", "preempt", "release_starts", "resume", "scale_to_zero"]

DELAY_MOST_S = 600.0
NOTICE_MOST_S = 120.0


@fault(
    needs=(Replicas,),
    evidence="its process has ended",
    undo="none: a dead process stays dead",
    healing="the platform's own supervisor starts another; the front door asks the others",
    draw=any_replica,
)
def kill(name: str = "") -> dict[str, Json]:
    """Kill one replica with SIGKILL; ``name`` "" is a random one, by the trial's seed.

    There is nothing to undo: the platform's own supervisor may restart it.
    """
    replicas = require(current().target, Replicas)
    chosen = choose_replica(replicas, name, "replicas.kill")

    def evidence(before: Replica) -> Evidence | None:
        after = replica_named(replicas, before.name)
        if after is None:
            how = "it is no longer listed"
        elif after.starts > before.starts or (after.pid is not None and after.pid != before.pid):
            how = f"restarted with pid {after.pid}"
        elif after.pid is None or not is_running(after.pid):
            how = "not restarted yet"
        else:
            return None
        was = f"pid {before.pid}" if before.pid is not None else "the process"
        return Evidence(
            f"{before.name}: {was} has ended, {how}",
            {"pid_before": before.pid, "pid_after": after.pid if after else None, "how": how},
        )

    return inject(
        Injection(
            fault="replicas.kill",
            subject=chosen.name,
            parameters={"name": chosen.name, "asked_for": name, "signal": "SIGKILL"},
            apply=lambda: replicas.kill(chosen.name),
            evidence=evidence,
            undo=None,
            prior=prior_state(chosen),
            one_shot="a dead process cannot be brought back; its supervisor may start another",
        )
    )


@fault(
    needs=(Replicas,),
    evidence="the kernel reports that its process is stopped",
    undo="the target resumes it (SIGCONT); by itself when the lease runs out",
    healing="restart the replica, or send its traffic elsewhere",
    draw=any_replica,
)
def pause(name: str = "") -> dict[str, Json]:
    """Stop one replica with SIGSTOP: its connections stay open and nothing answers. "" is a random one."""
    replicas = require(current().target, Replicas)
    chosen = choose_replica(replicas, name, "replicas.pause")
    if chosen.state == "paused":
        # The undo would end a pause that another program made.
        raise Refusal(f"{chosen.name} is paused already, by another program", f"kill -CONT {chosen.pid}")

    def evidence(_: object) -> Evidence | None:
        now = replica_named(replicas, chosen.name)
        if now is None or now.pid != chosen.pid or now.state != "paused":
            return None
        if now.pid is not None and not procfs.is_stopped(now.pid):
            return None
        return Evidence(f"{chosen.name}: pid {now.pid} is stopped", {"pid": now.pid})

    def why_ended() -> str:
        """A restarted replica is not paused any more. The lease tells of one that was resumed."""
        now = replica_named(replicas, chosen.name)
        if now is None or now.pid is None:
            return f"{chosen.name}: the paused process (pid {chosen.pid}) has ended"
        return "" if now.pid == chosen.pid else f"{chosen.name} was restarted, with pid {now.pid}"

    return inject(
        Injection(
            fault="replicas.pause",
            subject=chosen.name,
            parameters={"name": chosen.name, "asked_for": name, "signal": "SIGSTOP"},
            apply=lambda: replicas.pause(chosen.name, LEASE_S),
            evidence=evidence,
            undo=Undo("monkeyproof.faults.replicas:resume", {"name": chosen.name, "pid": chosen.pid}),
            prior=prior_state(chosen),
            lease_s=LEASE_S,
            why_ended=why_ended,
        )
    )


def resume(target: Target, name: str, pid: int | None = None) -> str:
    """Undo of ``pause``. Idempotent; does nothing to a replica that was replaced since."""
    replicas = require(target, Replicas)
    now = replica_named(replicas, name)
    if now is None or now.pid is None:
        return f"{name}: has ended, so nothing is paused"
    if pid is not None and now.pid != pid:
        return f"{name}: was replaced since (pid {now.pid}), so nothing is paused"
    was_paused = now.state == "paused" or procfs.is_stopped(now.pid)
    replicas.resume(name)

    def goes_on() -> bool:
        after = replica_named(replicas, name)
        return after is None or after.pid is None or (after.state != "paused" and not procfs.is_stopped(after.pid))

    if not wait_for(goes_on, within_s=2.0):
        raise TargetError(f"{name}: pid {now.pid} is still stopped; try: kill -CONT {now.pid}")
    return f"{name}: resumed" if was_paused else f"{name}: was not paused any more"


@fault(
    needs=(Replicas, Starts),
    evidence="its process has ended, and the supervisor delays its next start",
    undo="the supervisor starts it at once; by itself when the delay is over or the lease runs out",
    healing="the others take its requests; a restart is no quicker",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"name": "", "delay_s": round(1 + 4 * intensity, 1)} if target.stack else None
    ),
)
def delay_start(name: str = "", delay_s: float = 5.0) -> dict[str, Json]:
    """Kill one replica, and delay its next start by ``delay_s``: a cold image, a model to be fetched.

    ``name`` "" is a random one. A restart that is asked for meanwhile waits as well.
    """
    check_between("delay_s", delay_s, 0.0, DELAY_MOST_S, above=True)
    context = current()
    replicas, starts = require(context.target, Replicas), require(context.target, Starts)
    chosen = choose_replica(replicas, name, "replicas.delay_start")
    _refuse_if_held(starts, [chosen])

    def kill_replica() -> float:
        since_s = context.clock.monotonic_s()
        starts.end(chosen.name, StartCondition(float(delay_s)), lease_s=LEASE_S)
        return since_s

    def evidence(since_s: float) -> Evidence | None:
        left = starts.conditions().get(chosen.name)
        if left is None and context.clock.monotonic_s() - since_s >= delay_s:
            left = StartCondition()  # So short a delay is over by now.
        if left is None or not _has_ended(replicas, chosen):
            return None
        return Evidence(
            f"{chosen.name}: pid {chosen.pid} has ended, its next start is delayed by {left.delay_s:.1f} s more",
            {"pid_before": chosen.pid, "delay_left_s": round(left.delay_s, 3)},
        )

    return inject(
        Injection(
            fault="replicas.delay_start",
            subject=chosen.name,
            parameters={"name": chosen.name, "asked_for": name, "delay_s": float(delay_s)},
            apply=kill_replica,
            evidence=evidence,
            undo=_released([chosen]),
            prior=prior_state(chosen),
            lease_s=LEASE_S,
            ends_by_itself_s=float(delay_s),
        )
    )


@fault(
    needs=(Replicas, Starts),
    evidence="its process has ended: by itself within the notice, or killed at its end",
    undo="the supervisor starts its replacement at once; by itself when the time is over or the lease runs out",
    healing="shut down in order within the notice; the others take its requests until the replacement is there",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"name": "", "notice_s": 1.0, "replaced_after_s": round(1 + 4 * intensity, 1)} if target.stack else None
    ),
)
def preempt(name: str = "", notice_s: float = 2.0, replaced_after_s: float = 3.0) -> dict[str, Json]:
    """Take one replica's machine away, as a provider does with spot capacity: SIGTERM, and SIGKILL at the end.

    The kill comes ``notice_s`` after the notice (clouds give 25 to 120 s), the replacement ``replaced_after_s``
    after the end of the process. ``name`` "" is a random one.
    """
    check_between("notice_s", notice_s, 0.0, NOTICE_MOST_S, above=True)
    check_between("replaced_after_s", replaced_after_s, 0.0, DELAY_MOST_S)
    context = current()
    replicas, starts = require(context.target, Replicas), require(context.target, Starts)
    chosen = choose_replica(replicas, name, "replicas.preempt")
    _refuse_if_held(starts, [chosen])
    noticed_s = [0.0]

    def give_notice() -> None:
        noticed_s[0] = context.clock.monotonic_s()
        starts.end(chosen.name, StartCondition(float(replaced_after_s)), notice_s=float(notice_s), lease_s=LEASE_S)

    def evidence(_: object) -> Evidence | None:
        if not _has_ended(replicas, chosen):
            return None
        ended_after_s = context.clock.monotonic_s() - noticed_s[0]
        in_order = ended_after_s < notice_s
        how = "by itself" if in_order else "killed"
        return Evidence(
            f"{chosen.name}: pid {chosen.pid} was given {notice_s:g} s, and ended after {ended_after_s:.2f} s "
            f"({how})",
            {"pid_before": chosen.pid, "ended_after_s": round(ended_after_s, 3), "in_order": in_order},
        )

    return inject(
        Injection(
            fault="replicas.preempt",
            subject=chosen.name,
            parameters={
                "name": chosen.name,
                "asked_for": name,
                "notice_s": float(notice_s),
                "replaced_after_s": float(replaced_after_s),
            },
            apply=give_notice,
            evidence=evidence,
            undo=_released([chosen]),
            evidence_within_s=float(notice_s) + 5.0,
            prior=prior_state(chosen),
            lease_s=LEASE_S,
            # A process may end as soon as it gets the notice. With no delay, the platform alone starts the next.
            ends_by_itself_s=float(replaced_after_s) or None,
        )
    )


@fault(
    needs=(Replicas, Starts),
    evidence="every process has ended, and the supervisor delays the next starts",
    undo="the supervisor starts all at once; by itself when the delay is over or the lease runs out",
    healing="none is quicker than the start itself; keep one warm",
)
def scale_to_zero(delay_s: float = 3.0) -> dict[str, Json]:
    """Shut every replica down in order, and start each cold ``delay_s`` later, with empty caches.

    This is what users of a service see that was scaled to zero: under steady traffic the first request comes at
    once, so a cold start takes ``delay_s`` from the end. All are down together, so ``limits.replicas_down``, where
    the target has one, has to allow that.
    """
    check_between("delay_s", delay_s, 0.0, DELAY_MOST_S)
    replicas, starts = require(current().target, Replicas), require(current().target, Starts)
    chosen = sorted((one for one in replicas.list() if one.pid is not None), key=lambda one: one.name)
    if not chosen:
        raise Refusal("no replica is running", "wait until the target is steady")
    within_limit("replicas_down", len(list(replicas.list())), "replicas down at once")
    _refuse_if_held(starts, chosen)

    def end_all() -> None:
        for one in chosen:
            starts.end(one.name, StartCondition(float(delay_s)), notice_s=2.0, lease_s=LEASE_S)

    def evidence(_: object) -> Evidence | None:
        if not all(_has_ended(replicas, one) for one in chosen):
            return None
        names = ", ".join(one.name for one in chosen)
        return Evidence(f"{names}: all have ended", {"pids_before": [one.pid for one in chosen]})

    return inject(
        Injection(
            fault="replicas.scale_to_zero",
            subject="replicas",
            parameters={"delay_s": float(delay_s)},
            apply=end_all,
            evidence=evidence,
            undo=_released(chosen),
            prior={one.name: prior_state(one) for one in chosen},
            lease_s=LEASE_S,
            ends_by_itself_s=float(delay_s) or None,
        )
    )


def release_starts(target: Target, names: Sequence[str]) -> str:
    """Undo of the three above. Idempotent: what has started already is left alone."""
    starts = require(target, Starts)
    released = [name for name in names if starts.release(name)]
    if not released:
        return f"{', '.join(names)}: nothing delays the next start any more"
    return f"{', '.join(released)}: starts as usual again"


def _released(chosen: Sequence[Replica]) -> Undo:
    return Undo("monkeyproof.faults.replicas:release_starts", {"names": [one.name for one in chosen]})


def _refuse_if_held(starts: Starts, chosen: Sequence[Replica]) -> None:
    held = sorted(set(starts.conditions()) & {one.name for one in chosen})
    if held:
        raise Refusal(f"another fault already changes the next start of {held[0]}", "wait until it has started")


def _has_ended(replicas: Replicas, before: Replica) -> bool:
    """Whether that process has ended, also where a next one has started."""
    now = replica_named(replicas, before.name)
    if now is None or now.starts > before.starts or now.pid != before.pid:
        return True
    return before.pid is None or not is_running(before.pid)

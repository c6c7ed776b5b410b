"""Faults of scoring processes: killed, standing still, slow to start, preempted, scaled to zero."""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support.checks import check_between
from monkeyproof.faults.support.replica_choice import any_replica, choose, find, prior, runs
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
    evidence="its process is gone",
    undo="none: a dead process stays dead",
    healing="the platform's own supervisor starts another; the front door asks the others",
    draw=any_replica,
)
def kill(name: str = "") -> dict[str, Json]:
    """Kill one replica with SIGKILL; ``name`` "" is a random one, by the trial's seed.

    There is nothing to take back: the platform's own supervisor may restart it.
    """
    replicas = require(current().target, Replicas)
    victim = choose(replicas, name, "replicas.kill")

    def evidence(before: Replica) -> Evidence | None:
        after = find(replicas, before.name)
        if after is None:
            how = "it is no longer listed"
        elif after.starts > before.starts or (after.pid is not None and after.pid != before.pid):
            how = f"started anew with pid {after.pid}"
        elif after.pid is None or not runs(after.pid):
            how = "not restarted yet"
        else:
            return None
        was = f"pid {before.pid}" if before.pid is not None else "the process"
        return Evidence(
            f"{before.name}: {was} is gone, {how}",
            {"pid_before": before.pid, "pid_after": after.pid if after else None, "how": how},
        )

    return inject(
        Injection(
            fault="replicas.kill",
            subject=victim.name,
            parameters={"name": victim.name, "asked_for": name, "signal": "SIGKILL"},
            apply=lambda: replicas.kill(victim.name),
            evidence=evidence,
            undo=None,
            prior=prior(victim),
            one_shot="a dead process cannot be brought back; its supervisor may start another",
        )
    )


@fault(
    needs=(Replicas,),
    evidence="its process is stopped, read from the kernel",
    undo="it goes on (SIGCONT); by itself when the lease runs out",
    healing="restart the replica, or send its traffic elsewhere",
    draw=any_replica,
)
def pause(name: str = "") -> dict[str, Json]:
    """Stop one replica with SIGSTOP: its connections stay open and nothing answers. "" is a random one."""
    replicas = require(current().target, Replicas)
    victim = choose(replicas, name, "replicas.pause")
    if victim.state == "paused":
        # The undo would end what somebody else wants.
        raise Refusal(f"{victim.name} is paused already, by somebody else", f"kill -CONT {victim.pid}")

    def evidence(_: object) -> Evidence | None:
        now = find(replicas, victim.name)
        if now is None or now.pid != victim.pid or now.state != "paused":
            return None
        if now.pid is not None and not procfs.is_stopped(now.pid):
            return None
        return Evidence(f"{victim.name}: pid {now.pid} is stopped", {"pid": now.pid})

    def why_gone() -> str:
        """One that was started anew stands still no more; of one that was resumed, its lease tells."""
        now = find(replicas, victim.name)
        if now is None or now.pid is None:
            return f"{victim.name}: the process that stood still (pid {victim.pid}) is gone"
        return "" if now.pid == victim.pid else f"{victim.name} was started anew, with pid {now.pid}"

    return inject(
        Injection(
            fault="replicas.pause",
            subject=victim.name,
            parameters={"name": victim.name, "asked_for": name, "signal": "SIGSTOP"},
            apply=lambda: replicas.pause(victim.name, LEASE_S),
            evidence=evidence,
            undo=Undo("monkeyproof.faults.replicas:resume", {"name": victim.name, "pid": victim.pid}),
            prior=prior(victim),
            lease_s=LEASE_S,
            why_gone=why_gone,
        )
    )


def resume(target: Target, name: str, pid: int | None = None) -> str:
    """Undo of ``pause``. Idempotent; leaves a replica alone that was replaced since."""
    replicas = require(target, Replicas)
    now = find(replicas, name)
    if now is None or now.pid is None:
        return f"{name}: is gone, so nothing is paused"
    if pid is not None and now.pid != pid:
        return f"{name}: was replaced since (pid {now.pid}), so nothing is paused"
    was_paused = now.state == "paused" or procfs.is_stopped(now.pid)
    replicas.resume(name)

    def goes_on() -> bool:
        after = find(replicas, name)
        return after is None or after.pid is None or (after.state != "paused" and not procfs.is_stopped(after.pid))

    if not wait_for(goes_on, within_s=2.0):
        raise TargetError(f"{name}: pid {now.pid} is still stopped; try: kill -CONT {now.pid}")
    return f"{name}: resumed" if was_paused else f"{name}: was not paused any more"


@fault(
    needs=(Replicas, Starts),
    evidence="its process is gone, and the supervisor holds its next start back",
    undo="it starts at once; by itself when the delay is over or the lease runs out",
    healing="the others take its requests; restarting it is no quicker",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"name": "", "delay_s": round(1 + 4 * intensity, 1)} if target.stack else None
    ),
)
def delay_start(name: str = "", delay_s: float = 5.0) -> dict[str, Json]:
    """Kill one replica, and let its next start take ``delay_s`` longer: a cold image, a model to be fetched.

    ``name`` "" is a random one. Whoever asks for a restart meanwhile waits as well.
    """
    check_between("delay_s", delay_s, 0.0, DELAY_MOST_S, above=True)
    context = current()
    replicas, starts = require(context.target, Replicas), require(context.target, Starts)
    victim = choose(replicas, name, "replicas.delay_start")
    _refuse_if_held(starts, [victim])

    def kill_it() -> float:
        since_s = context.clock.monotonic_s()
        starts.end(victim.name, StartCondition(float(delay_s)), lease_s=LEASE_S)
        return since_s

    def evidence(since_s: float) -> Evidence | None:
        left = starts.conditions().get(victim.name)
        if left is None and context.clock.monotonic_s() - since_s >= delay_s:
            left = StartCondition()  # So short a delay is over by now.
        if left is None or not _has_ended(replicas, victim):
            return None
        return Evidence(
            f"{victim.name}: pid {victim.pid} is gone, and its next start is held for {left.delay_s:.1f} s more",
            {"pid_before": victim.pid, "delay_left_s": round(left.delay_s, 3)},
        )

    return inject(
        Injection(
            fault="replicas.delay_start",
            subject=victim.name,
            parameters={"name": victim.name, "asked_for": name, "delay_s": float(delay_s)},
            apply=kill_it,
            evidence=evidence,
            undo=_released([victim]),
            prior=prior(victim),
            lease_s=LEASE_S,
            ends_by_itself_s=float(delay_s),
        )
    )


@fault(
    needs=(Replicas, Starts),
    evidence="its process is gone: by itself within the notice, or killed at its end",
    undo="its replacement starts at once; by itself when the time is over or the lease runs out",
    healing="end in order within the notice; the others take its requests until the replacement is there",
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
    victim = choose(replicas, name, "replicas.preempt")
    _refuse_if_held(starts, [victim])
    noticed_s = [0.0]

    def give_notice() -> None:
        noticed_s[0] = context.clock.monotonic_s()
        starts.end(victim.name, StartCondition(float(replaced_after_s)), notice_s=float(notice_s), lease_s=LEASE_S)

    def evidence(_: object) -> Evidence | None:
        if not _has_ended(replicas, victim):
            return None
        ended_after_s = context.clock.monotonic_s() - noticed_s[0]
        in_order = ended_after_s < notice_s
        how = "by itself" if in_order else "killed"
        return Evidence(
            f"{victim.name}: pid {victim.pid} was given {notice_s:g} s, and was gone after {ended_after_s:.2f} s "
            f"({how})",
            {"pid_before": victim.pid, "ended_after_s": round(ended_after_s, 3), "in_order": in_order},
        )

    return inject(
        Injection(
            fault="replicas.preempt",
            subject=victim.name,
            parameters={
                "name": victim.name,
                "asked_for": name,
                "notice_s": float(notice_s),
                "replaced_after_s": float(replaced_after_s),
            },
            apply=give_notice,
            evidence=evidence,
            undo=_released([victim]),
            evidence_within_s=float(notice_s) + 5.0,
            prior=prior(victim),
            lease_s=LEASE_S,
            # Who is told to end may be gone at once. With no delay, what starts it is the platform alone.
            ends_by_itself_s=float(replaced_after_s) or None,
        )
    )


@fault(
    needs=(Replicas, Starts),
    evidence="every process is gone, and the supervisor holds the next starts back",
    undo="all start at once; by itself when the delay is over or the lease runs out",
    healing="none is quicker than the start itself; keep one warm",
)
def scale_to_zero(delay_s: float = 3.0) -> dict[str, Json]:
    """End every replica in order, and let each come back cold ``delay_s`` later, with empty caches.

    What users meet who ask a service that was scaled to zero: under steady traffic the first request comes at
    once, so a cold start takes ``delay_s`` from the end. All are down together, so ``limits.replicas_down``, where
    the target has one, has to allow that.
    """
    check_between("delay_s", delay_s, 0.0, DELAY_MOST_S)
    replicas, starts = require(current().target, Replicas), require(current().target, Starts)
    victims = sorted((one for one in replicas.list() if one.pid is not None), key=lambda one: one.name)
    if not victims:
        raise Refusal("no replica is running", "wait until the target is steady")
    within_limit("replicas_down", len(list(replicas.list())), "replicas down at once")
    _refuse_if_held(starts, victims)

    def end_all() -> None:
        for one in victims:
            starts.end(one.name, StartCondition(float(delay_s)), notice_s=2.0, lease_s=LEASE_S)

    def evidence(_: object) -> Evidence | None:
        if not all(_has_ended(replicas, one) for one in victims):
            return None
        names = ", ".join(one.name for one in victims)
        return Evidence(f"{names}: all have ended", {"pids_before": [one.pid for one in victims]})

    return inject(
        Injection(
            fault="replicas.scale_to_zero",
            subject="replicas",
            parameters={"delay_s": float(delay_s)},
            apply=end_all,
            evidence=evidence,
            undo=_released(victims),
            prior={one.name: prior(one) for one in victims},
            lease_s=LEASE_S,
            ends_by_itself_s=float(delay_s) or None,
        )
    )


def release_starts(target: Target, names: Sequence[str]) -> str:
    """Undo of the three above. Idempotent: what has started already is left alone."""
    starts = require(target, Starts)
    released = [name for name in names if starts.release(name)]
    if not released:
        return f"{', '.join(names)}: nothing was done to the next start any more"
    return f"{', '.join(released)}: starts as usual again"


def _released(victims: Sequence[Replica]) -> Undo:
    return Undo("monkeyproof.faults.replicas:release_starts", {"names": [one.name for one in victims]})


def _refuse_if_held(starts: Starts, victims: Sequence[Replica]) -> None:
    held = sorted(set(starts.conditions()) & {one.name for one in victims})
    if held:
        raise Refusal(f"something is done to the next start of {held[0]} already", "wait until it has started")


def _has_ended(replicas: Replicas, before: Replica) -> bool:
    """Whether that life is over, be there a next one or not."""
    now = find(replicas, before.name)
    if now is None or now.starts > before.starts or now.pid != before.pid:
        return True
    return before.pid is None or not runs(before.pid)

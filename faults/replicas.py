"""Faults of scoring processes: one is killed, or stands still."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from monkeyproof.clock import wait_for
from monkeyproof.config import TargetFile
from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.injection import Injection, current, inject, within_limit
from monkeyproof.repertoire import fault
from monkeyproof.targets.port import LEASE_S, Replica, Replicas, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo import Undo

__all__ = ["kill", "pause", "resume"]


def _any_replica(rng: np.random.Generator, target: TargetFile, intensity: float) -> Mapping[str, Json] | None:  # noqa: ARG001
    """The trial's seed chooses which."""
    return {"name": ""} if target.stack else None


@fault(
    needs=(Replicas,),
    evidence="its process is gone",
    undo="none: a dead process stays dead",
    healing="the platform's own supervisor starts another; the front door asks the others",
    draw=_any_replica,
)
def kill(name: str = "") -> dict[str, Json]:
    """Kill one replica with SIGKILL; ``name`` "" is a random one, by the trial's seed.

    There is nothing to take back: the platform's own supervisor may restart it.
    """
    replicas = require(current().target, Replicas)
    victim = _choose(replicas, name, "replicas.kill")

    def evidence(before: Replica) -> Evidence | None:
        after = _find(replicas, before.name)
        if after is None:
            how = "it is no longer listed"
        elif after.starts > before.starts or (after.pid is not None and after.pid != before.pid):
            how = f"started anew with pid {after.pid}"
        elif after.pid is None or not _runs(after.pid):
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
            prior=_prior(victim),
            one_shot="a dead process cannot be brought back; its supervisor may start another",
        )
    )


@fault(
    needs=(Replicas,),
    evidence="its process is stopped, read from the kernel",
    undo="it goes on (SIGCONT); by itself when the lease runs out",
    healing="restart the replica, or send its traffic elsewhere",
    draw=_any_replica,
)
def pause(name: str = "") -> dict[str, Json]:
    """Stop one replica with SIGSTOP: its connections stay open and nothing answers. "" is a random one."""
    replicas = require(current().target, Replicas)
    victim = _choose(replicas, name, "replicas.pause")
    if victim.state == "paused":
        # The undo would end what somebody else wants.
        raise Refusal(f"{victim.name} is paused already, by somebody else", f"kill -CONT {victim.pid}")

    def evidence(_: object) -> Evidence | None:
        now = _find(replicas, victim.name)
        if now is None or now.pid != victim.pid or now.state != "paused":
            return None
        if now.pid is not None and not _stopped(now.pid):
            return None
        return Evidence(f"{victim.name}: pid {now.pid} is stopped", {"pid": now.pid})

    return inject(
        Injection(
            fault="replicas.pause",
            subject=victim.name,
            parameters={"name": victim.name, "asked_for": name, "signal": "SIGSTOP"},
            apply=lambda: replicas.pause(victim.name, LEASE_S),
            evidence=evidence,
            undo=Undo("monkeyproof.faults.replicas:resume", {"name": victim.name, "pid": victim.pid}),
            prior=_prior(victim),
            lease_s=LEASE_S,
        )
    )


def resume(target: Target, name: str, pid: int | None = None) -> str:
    """Undo of ``pause``. Idempotent; leaves a replica alone that was replaced since."""
    replicas = require(target, Replicas)
    now = _find(replicas, name)
    if now is None or now.pid is None:
        return f"{name}: is gone, so nothing is paused"
    if pid is not None and now.pid != pid:
        return f"{name}: was replaced since (pid {now.pid}), so nothing is paused"
    was_paused = now.state == "paused" or _stopped(now.pid)
    replicas.resume(name)

    def runs() -> bool:
        after = _find(replicas, name)
        return after is None or after.pid is None or (after.state != "paused" and not _stopped(after.pid))

    if not wait_for(runs, within_s=2.0):
        raise TargetError(f"{name}: pid {now.pid} is still stopped; try: kill -CONT {now.pid}")
    return f"{name}: resumed" if was_paused else f"{name}: was not paused any more"


def _choose(replicas: Replicas, name: str, purpose: str) -> Replica:
    """The replica to break.

    Raises:
        UsageError: there is none of that name.
        Refusal: it is down already, no other would be left to serve, or more would be down than the target allows.
    """
    found = sorted(replicas.list(), key=lambda one: one.name)
    serving = [one for one in found if one.state == "ready" and not one.drained]
    if not name:
        if not serving:
            raise Refusal("no replica is serving", "wait until the target is steady")
        victim = serving[int(current().rng(purpose).integers(len(serving)))]
    else:
        named = [one for one in found if one.name == name]
        if not named:
            raise UsageError(
                f"name: no replica {name!r}; there are {', '.join(one.name for one in found) or 'none'}"
            )
        victim = named[0]
    if victim.state in ("down", "backing_off"):
        raise Refusal(f"{victim.name} is {victim.state} already", "wait until it is restarted")
    if not [one for one in serving if one.name != victim.name]:
        raise Refusal(
            f"without {victim.name} no replica would be serving", "wait until others are ready, or undrain them"
        )
    down = [one for one in found if one.state != "ready" and one.name != victim.name]
    within_limit("replicas_down", len(down) + 1, "replicas down at once")
    return victim


def _prior(replica: Replica) -> dict[str, Json]:
    return {"state": replica.state, "pid": replica.pid, "starts": replica.starts, "drained": replica.drained}


def _find(replicas: Replicas, name: str) -> Replica | None:
    return next((one for one in replicas.list() if one.name == name), None)


def _state(pid: int) -> str:
    """The kernel's letter for a process of this machine: T is stopped, Z dead and not reaped; "" if gone."""
    with contextlib.suppress(OSError):
        # The name before it, in parentheses, may hold anything.
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        )
    return ""


def _runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return _state(pid) not in ("Z", "X", "")
    return False


def _stopped(pid: int) -> bool:
    return _state(pid) in ("T", "t")

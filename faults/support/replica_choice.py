"""Chooses the replica that a fault acts on, and reads its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.injection.inject import current, within_limit
from monkeyproof.runtime import procfs
from monkeyproof.targets.port import Replica, Replicas
from monkeyproof.types import Json


def any_replica(rng: np.random.Generator, target: TargetFile, intensity: float) -> Mapping[str, Json] | None:  # noqa: ARG001
    """Arguments of a fault that is drawn by chance: the trial's seed chooses the replica."""
    return {"name": ""} if target.stack else None


def choose_replica(replicas: Replicas, name: str, purpose: str) -> Replica:
    """The replica that a fault will act on: the one of that name; for "" a random one that serves.

    Args:
        purpose: what the choice is for, as of ``Context.rng``.

    Raises:
        UsageError: there is none of that name.
        Refusal: it is down already, no other would be left to serve, or more would be down than the target allows.
    """
    found = sorted(replicas.list(), key=lambda one: one.name)
    serving = [one for one in found if one.state == "ready" and not one.drained]
    if not name:
        if not serving:
            raise Refusal("no replica is serving", "wait until the target is steady")
        chosen = serving[int(current().rng(purpose).integers(len(serving)))]
    else:
        named = [one for one in found if one.name == name]
        if not named:
            raise UsageError(
                f"name: no replica {name!r}; there are {', '.join(one.name for one in found) or 'none'}"
            )
        chosen = named[0]
    if chosen.state in ("down", "backing_off"):
        raise Refusal(f"{chosen.name} is {chosen.state} already", "wait until it is restarted")
    if not [one for one in serving if one.name != chosen.name]:
        raise Refusal(
            f"without {chosen.name} no replica would be serving", "wait until others are ready, or undrain them"
        )
    down = [one for one in found if one.state != "ready" and one.name != chosen.name]
    within_limit("replicas_down", len(down) + 1, "replicas down at once")
    return chosen


def prior_state(replica: Replica) -> dict[str, Json]:
    """What is on record of a replica before a fault."""
    return {"state": replica.state, "pid": replica.pid, "starts": replica.starts, "drained": replica.drained}


def replica_named(replicas: Replicas, name: str) -> Replica | None:
    """The replica as it is now; None if it is not listed any more."""
    return next((one for one in replicas.list() if one.name == name), None)


def is_running(pid: int) -> bool:
    """Whether a process of this user lives on this machine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return procfs.is_alive(pid)
    return False

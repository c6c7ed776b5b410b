"""Choosing the scoring process that a fault is done to, and looking at it."""

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
    """Arguments for ``choose``, of a fault drawn by chance: the trial's seed chooses which."""
    return {"name": ""} if target.stack else None


def choose(replicas: Replicas, name: str, purpose: str) -> Replica:
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


def prior(replica: Replica) -> dict[str, Json]:
    return {"state": replica.state, "pid": replica.pid, "starts": replica.starts, "drained": replica.drained}


def find(replicas: Replicas, name: str) -> Replica | None:
    return next((one for one in replicas.list() if one.name == name), None)


def runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return procfs.is_alive(pid)
    return False

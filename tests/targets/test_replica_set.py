"""Paused replicas on a lease: those that somebody else resumed are not paused any more."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from types import SimpleNamespace
from typing import Any

from monkeyproof.clock import wait_for
from monkeyproof.targets.local.keeper import Keeper
from monkeyproof.targets.local.pids import is_stopped
from monkeyproof.targets.local.plan import REPLICAS
from monkeyproof.targets.local.replica_set import ReplicaSet


def test_a_paused_replica_that_somebody_resumed_has_lost_its_lease() -> None:
    parts: Any = None
    plan: Any = SimpleNamespace(ports=dict.fromkeys(REPLICAS, 0))
    group: Any = SimpleNamespace(disown=lambda _: None)
    replicas = ReplicaSet(plan, group, parts, lambda: None)
    sleeper = subprocess.Popen(["/bin/sleep", "60"])
    keeper: Keeper = replicas.keepers["replica-1"]
    keeper.pid, keeper._pidfd = sleeper.pid, os.pidfd_open(sleeper.pid)

    async def pause_and_renew() -> list[dict[str, str]]:
        await replicas.pause("replica-1", lease_s=60.0)
        held = replicas.renew(["replica-1"])
        sleeper.send_signal(signal.SIGCONT)
        assert wait_for(lambda: not is_stopped(sleeper.pid), within_s=5.0)
        return [held, replicas.renew(["replica-1"])]

    try:
        assert asyncio.run(pause_and_renew()) == [{}, {"replica-1": "replica-1 is not paused any more"}]
    finally:
        sleeper.kill()
        sleeper.wait()
        os.close(keeper._pidfd)

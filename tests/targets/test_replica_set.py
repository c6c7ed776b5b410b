"""Paused replicas on a lease: those that another process resumed are not paused any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.runtime.procfs import is_stopped
from monkeyproof.targets.local.control_plane.layout import REPLICAS
from monkeyproof.targets.local.control_plane.process_supervisor import ProcessSupervisor
from monkeyproof.targets.local.control_plane.replica_set import ReplicaSet
from monkeyproof.targets.port import StartCondition


@contextlib.contextmanager
def standing() -> Iterator[tuple[ReplicaSet, ProcessSupervisor, subprocess.Popen[bytes]]]:
    """A replica set of which the first replica is a process that sleeps."""
    parts: Any = SimpleNamespace(drained=frozenset())
    plan: Any = SimpleNamespace(ports=dict.fromkeys(REPLICAS, 0), url=str)
    group: Any = SimpleNamespace(disown=lambda _: None)
    replicas = ReplicaSet(plan, group, parts, lambda: None)
    sleeper = subprocess.Popen(["/bin/sleep", "60"])
    process: ProcessSupervisor = replicas.processes["replica-1"]
    process.pid, process._pidfd = sleeper.pid, os.pidfd_open(sleeper.pid)
    try:
        yield replicas, process, sleeper
    finally:
        sleeper.kill()
        sleeper.wait()
        os.close(process._pidfd)


def test_paused_replica_resumed_by_another_process_has_lost_its_lease() -> None:
    with standing() as (replicas, _, sleeper):

        async def pause_and_renew() -> list[dict[str, str]]:
            await replicas.pause("replica-1", lease_s=60.0)
            held = replicas.renew(["replica-1"])
            sleeper.send_signal(signal.SIGCONT)
            assert wait_for(lambda: not is_stopped(sleeper.pid), within_s=5.0)
            return [held, replicas.renew(["replica-1"])]

        assert asyncio.run(pause_and_renew()) == [{}, {"replica-1": "replica-1 is not paused any more"}]


def test_paused_replica_that_was_restarted_has_lost_no_lease() -> None:
    with standing() as (replicas, process, sleeper):

        async def pause_and_replace() -> dict[str, str]:
            await replicas.pause("replica-1", lease_s=60.0)
            process.pid = os.getpid()
            return replicas.renew(["replica-1"])

        assert asyncio.run(pause_and_replace()) == {}
        process.pid = sleeper.pid


@pytest.mark.parametrize("lease_s", [None, 0.05])
def test_replica_under_notice_is_not_killed_after_the_revert(lease_s: float | None) -> None:
    with standing() as (replicas, process, sleeper):
        sleeper.send_signal(signal.SIGSTOP)  # So that the notice alone does not end it.
        assert wait_for(lambda: is_stopped(sleeper.pid), within_s=5.0)  # Of two at once SIGTERM would come first.

        async def give_notice_and_take_back() -> None:
            await replicas.end("replica-1", StartCondition(60.0), 0.2, lease_s)
            if lease_s is None:
                assert await replicas.release("replica-1")
            await asyncio.sleep(0.3)

        asyncio.run(give_notice_and_take_back())
        assert replicas.conditions() == {}
        assert (process.pid, sleeper.poll()) == (sleeper.pid, None)

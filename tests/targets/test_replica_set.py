"""Leases that a supervisor holds: paused replicas, and starts that are held back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from types import SimpleNamespace
from typing import Any

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.targets.local.keeper import Keeper
from monkeyproof.targets.local.pids import is_stopped
from monkeyproof.targets.local.plan import REPLICAS
from monkeyproof.targets.local.replica_set import ReplicaSet
from monkeyproof.targets.local.starting import StartConditions
from monkeyproof.targets.port import StartCondition


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


def test_a_paused_replica_that_was_started_anew_has_lost_no_lease() -> None:
    parts: Any = None
    plan: Any = SimpleNamespace(ports=dict.fromkeys(REPLICAS, 0))
    group: Any = SimpleNamespace(disown=lambda _: None)
    replicas = ReplicaSet(plan, group, parts, lambda: None)
    sleepers = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(2)]
    keeper: Keeper = replicas.keepers["replica-1"]
    keeper.pid, keeper._pidfd = sleepers[0].pid, os.pidfd_open(sleepers[0].pid)

    async def pause_and_renew() -> None:
        await replicas.pause("replica-1", lease_s=0.3)
        keeper.pid = sleepers[1].pid  # What a healer's restart does.
        for _ in range(10):
            await asyncio.sleep(0.05)
            assert replicas.renew(["replica-1"]) == {}

    try:
        asyncio.run(pause_and_renew())
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
        os.close(keeper._pidfd)


def test_a_start_waits_for_its_delay_and_no_longer_than_until_it_is_released() -> None:
    async def story() -> None:
        starts = StartConditions(_nothing)
        starts.hold("a", StartCondition(0.15), None)
        starts.hold("b", StartCondition(60.0), None)
        with pytest.raises(TargetError, match="a: something is done to its next start already"):
            starts.hold("a", StartCondition(1.0), None)
        began_s = time.monotonic()
        waiting = asyncio.create_task(starts.before_start("b"))
        assert await starts.before_start("a") == {}
        assert 0.14 <= time.monotonic() - began_s < 5
        assert not waiting.done()
        assert set(starts.all()) == {"b"}
        assert 59 < starts.all()["b"].delay_s < 60
        assert starts.release("b") == StartCondition(60.0)
        assert await asyncio.wait_for(waiting, 5) == {}
        assert starts.release("b") is None
        assert await starts.before_start("c") == {}

    asyncio.run(story())


def test_another_environment_lasts_over_several_starts_until_it_is_released() -> None:
    async def story() -> None:
        starts = StartConditions(_nothing)
        starts.hold("a", StartCondition(0.0, {"TZ": "UTC"}), None)
        assert [await starts.before_start("a") for _ in range(2)] == [{"TZ": "UTC"}, {"TZ": "UTC"}]
        starts.release("a")
        assert await starts.before_start("a") == {}

    asyncio.run(story())


def test_a_start_that_is_not_renewed_is_let_go() -> None:
    async def story() -> None:
        taken_back = asyncio.Event()

        async def note(name: str, condition: StartCondition) -> None:
            assert (name, condition.delay_s) == ("a", 60.0)
            taken_back.set()

        starts = StartConditions(note)
        starts.hold("a", StartCondition(60.0), 0.3)
        waiting = asyncio.create_task(starts.before_start("a"))
        for _ in range(8):
            await asyncio.sleep(0.05)
            assert starts.renew(["a"]) == {}
        assert not waiting.done()
        await asyncio.wait_for(taken_back.wait(), 5)
        assert await asyncio.wait_for(waiting, 5) == {}
        assert starts.renew(["a"]) == {"a": "the start of a was held, and that not renewed for 0.3 s"}
        starts.hold("a", StartCondition(1.0), 60.0)
        assert starts.renew(["a"]) == {}
        starts.release("a")

    asyncio.run(story())


async def _nothing(name: str, condition: StartCondition) -> None:
    pass

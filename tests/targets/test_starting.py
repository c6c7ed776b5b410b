"""What the next start of a replica meets: a delay, or an environment, on a lease that the supervisor holds."""

from __future__ import annotations

import asyncio
import time

import pytest

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.control_plane.start_conditions import StartConditions
from monkeyproof.targets.port import StartCondition


def test_start_waits_for_its_delay_or_its_release() -> None:
    async def story() -> None:
        starts = StartConditions(_nothing)
        starts.impose("a", StartCondition(0.15), None)
        starts.impose("b", StartCondition(60.0), None)
        with pytest.raises(TargetError, match="a: something is done to its next start already"):
            starts.impose("a", StartCondition(1.0), None)
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


def test_changed_environment_lasts_over_several_starts_until_released() -> None:
    async def story() -> None:
        starts = StartConditions(_nothing)
        starts.impose("a", StartCondition(0.0, {"TZ": "UTC"}), None)
        assert [await starts.before_start("a") for _ in range(2)] == [{"TZ": "UTC"}, {"TZ": "UTC"}]
        starts.release("a")
        assert await starts.before_start("a") == {}

    asyncio.run(story())


def test_start_condition_without_renewal_ends() -> None:
    async def story() -> None:
        taken_back = asyncio.Event()

        async def note(name: str, condition: StartCondition) -> None:
            assert (name, condition.delay_s) == ("a", 60.0)
            taken_back.set()

        starts = StartConditions(note)
        starts.impose("a", StartCondition(60.0), 0.3)
        waiting = asyncio.create_task(starts.before_start("a"))
        for _ in range(8):
            await asyncio.sleep(0.05)
            assert starts.renew(["a"]) == {}
        assert not waiting.done()
        await asyncio.wait_for(taken_back.wait(), 5)
        assert await asyncio.wait_for(waiting, 5) == {}
        assert starts.renew(["a"]) == {"a": "the start of a was held, and that not renewed for 0.3 s"}
        starts.impose("a", StartCondition(1.0), 60.0)
        assert starts.renew(["a"]) == {}
        starts.release("a")

    asyncio.run(story())


async def _nothing(name: str, condition: StartCondition) -> None:
    pass

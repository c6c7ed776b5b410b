"""The proxy's timers: in order, never early, close to their time, and gone when they are cancelled."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
import weakref
from collections.abc import Callable

import pytest
import uvloop

from monkeyproof.faults.proxy.timers import Timers


@pytest.fixture
def run():
    """Run an async function of a ``Timers`` on a loop like the proxy's."""

    def runs(what: Callable) -> None:
        async def with_timers() -> None:
            timers = Timers(asyncio.get_running_loop())
            try:
                await what(timers)
            finally:
                timers.close()

        uvloop.run(with_timers())

    return runs


async def wait_until(true: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.001)


def test_many_ring_in_order_and_never_early(run):
    rang: list[tuple[float, float]] = []

    async def many(timers: Timers) -> None:
        rng, now_s = random.Random(1), time.monotonic()
        for _ in range(3000):
            due_s = now_s + rng.uniform(0, 0.3)
            timers.at(due_s, lambda due_s=due_s: rang.append((due_s, time.monotonic())))
        await wait_until(lambda: len(rang) == 3000)
        assert len(timers) == 0

    run(many)
    assert [due_s for due_s, _ in rang] == sorted(due_s for due_s, _ in rang)
    assert min(at_s - due_s for due_s, at_s in rang) >= 0


def test_they_are_finer_than_a_millisecond(run):
    """One of whole milliseconds would be 0.5 ms late in the middle, in the quietest moment of the machine too."""
    late_s: list[float] = []

    async def some(timers: Timers) -> None:
        late_s.clear()
        for _ in range(20):
            rang, due_s = asyncio.Event(), time.monotonic() + 0.0013

            def ring(rang: asyncio.Event = rang, due_s: float = due_s) -> None:
                late_s.append(time.monotonic() - due_s)
                rang.set()

            timers.at(due_s, ring)
            await rang.wait()

    def once() -> bool:
        run(some)
        return statistics.median(late_s) < 0.00015

    assert any(once() for _ in range(40))


def test_an_earlier_one_that_comes_later_is_not_kept_waiting(run):
    rang: list[str] = []

    async def two(timers: Timers) -> None:
        timers.at(time.monotonic() + 30, lambda: rang.append("late"))
        timers.at(time.monotonic() + 0.005, lambda: rang.append("early"))
        timers.at(time.monotonic() - 1, lambda: rang.append("past"))
        await wait_until(lambda: len(rang) == 2)

    run(two)
    assert rang == ["past", "early"]


def test_those_due_at_the_same_time_ring_in_the_order_made(run):
    rang: list[int] = []

    async def same(timers: Timers) -> None:
        due_s = time.monotonic() + 0.002
        for n in range(50):
            timers.at(due_s, lambda n=n: rang.append(n))
        await wait_until(lambda: len(rang) == 50)

    run(same)
    assert rang == list(range(50))


def test_a_cancelled_one_never_rings_and_is_not_kept(run):
    class Waiting:
        def ring(self) -> None:
            rang.append(self)

    rang: list[object] = []

    async def cancelled(timers: Timers) -> None:
        due_s = time.monotonic() + 0.01
        waiting = [Waiting() for _ in range(2000)]
        gone = [weakref.ref(one) for one in waiting[:-1]]
        made = [timers.at(due_s if n % 2 else due_s + 600, one.ring) for n, one in enumerate(waiting)]
        last = waiting[-1]
        for timer in made[:-1]:
            timer.cancel()
            timer.cancel()
        assert len(timers) < 200  # Those of which the time is far off are forgotten too.
        del waiting, made, timer
        assert [one for one in gone if one() is not None] == []
        await wait_until(lambda: bool(rang))
        assert rang == [last]

    run(cancelled)


def test_one_may_be_set_and_cancelled_while_another_rings(run):
    rang: list[str] = []

    async def nested(timers: Timers) -> None:
        now_s = time.monotonic()

        def first() -> None:
            rang.append("first")
            second.cancel()
            timers.at(now_s, lambda: rang.append("third"))

        timers.at(now_s + 0.002, first)
        second = timers.at(now_s + 0.002, lambda: rang.append("second"))
        timers.at(now_s + 0.02, lambda: rang.append("fourth"))
        await wait_until(lambda: "fourth" in rang)

    run(nested)
    assert rang == ["first", "third", "fourth"]


def test_one_that_fails_does_not_stop_the_others(run):
    rang: list[int] = []

    async def failing(timers: Timers) -> None:
        problems: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
        now_s = time.monotonic()
        timers.at(now_s + 0.001, lambda: 1 / 0)
        timers.at(now_s + 0.001, lambda: rang.append(1))
        timers.at(now_s + 0.003, lambda: rang.append(2))
        await wait_until(lambda: rang == [1, 2])
        assert len(problems) == 1

    run(failing)

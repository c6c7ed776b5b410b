"""Keeping one process alive: noticed deaths, backoff, and ports that are chosen with care."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_ref import identity, is_same
from monkeyproof.targets.local.control_plane import process_supervisor as keeping
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, choose_layout, free_ports, is_free
from monkeyproof.targets.local.control_plane.process_supervisor import Backoff, ProcessSupervisor, StartError


@pytest.mark.parametrize(
    ("lives_s", "waits_s"),
    [
        ([0, 0, 0, 0, 0, 0, 0], [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
        ([9.9, 9.9], [0.2, 0.4]),
        ([0, 0, 10.0, 0], [0.2, 0.4, 0.2, 0.4]),
    ],
)
def test_backoff(lives_s: Sequence[float], waits_s: Sequence[float]) -> None:
    backoff = Backoff()
    assert [backoff.next_s(life_s) for life_s in lives_s] == pytest.approx(waits_s)


@given(st.lists(st.floats(0, 100), max_size=2000))
def test_backoff_is_always_bounded(lives_s: list[float]) -> None:
    backoff = Backoff()
    assert all(0.2 <= backoff.next_s(life_s) <= 5.0 for life_s in lives_s)


class Sleeper:
    """A process that does nothing, for as long as it is let."""

    def __init__(self, code: str = "import time; time.sleep(60)") -> None:
        self.code = code
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.answering = True
        self.cannot_start = ""

    async def start(self) -> int:
        if self.cannot_start:
            raise TargetError(self.cannot_start)
        child = subprocess.Popen([sys.executable, "-S", "-c", self.code], start_new_session=True)
        self.children[child.pid] = child
        return child.pid

    def ended(self, pid: int) -> None:
        self.children.pop(pid).wait(5)

    async def answers(self) -> bool:
        return self.answering


@asynccontextmanager
async def kept(sleeper: Sleeper) -> AsyncIterator[ProcessSupervisor]:
    keeper = ProcessSupervisor("sleeper", start=sleeper.start, answers=sleeper.answers, ended=sleeper.ended)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for child in sleeper.children.values():
            child.kill()
            child.wait(5)


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))  # type: ignore[arg-type]


def test_death_is_noticed_at_once_and_followed_by_a_restart_after_the_backoff() -> None:
    async def story() -> None:
        async with kept(Sleeper()) as keeper:
            await keeper.wait_ready(5)
            first = keeper.signal(signal.SIGKILL)
            died_s = time.monotonic()
            await until(lambda: keeper.pid is None)
            assert time.monotonic() - died_s < 0.15
            assert keeper.state == "backing_off"
            await until(lambda: keeper.starts == 2 and keeper.state == "ready")
            assert time.monotonic() - died_s >= 0.2
            assert keeper.pid not in (None, first)

    run(story)


def test_restart_does_not_wait_even_after_many_deaths_and_ends_a_stopped_process() -> None:
    async def story() -> None:
        async with kept(Sleeper()) as keeper:
            await keeper.wait_ready(5)
            keeper.backoff.failures = 10
            keeper.signal(signal.SIGSTOP)
            await until(lambda: keeper.state == "paused")
            before_s = time.monotonic()
            await keeper.restart()
            assert time.monotonic() - before_s < 2.0
            await until(lambda: keeper.state == "ready")
            assert keeper.starts == 2

    run(story)


def test_restart_kills_a_process_that_ignores_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RESTART_GRACE_S", 1.0)

    async def story() -> None:
        said = tmp_path / "deaf"
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        async with kept(Sleeper(f"{deaf}; open({str(said)!r}, 'w'); time.sleep(60)")) as keeper:
            await until(said.exists)
            await keeper.restart()
            assert keeper.starts == 2

    run(story)


def test_a_part_that_ends_before_it_answers_is_a_failed_start() -> None:
    async def story() -> None:
        sleeper = Sleeper("raise SystemExit(3)")
        sleeper.answering = False
        async with kept(sleeper) as keeper:
            with pytest.raises(StartError, match=r"sleeper: pid \d+ ended"):
                await keeper.wait_ready(5)

    run(story)


def test_a_part_that_never_answers_is_a_failed_start() -> None:
    async def story() -> None:
        sleeper = Sleeper()
        sleeper.answering = False
        async with kept(sleeper) as keeper:
            with pytest.raises(StartError, match=r"no answer within 0\.2 s"):
                await keeper.wait_ready(0.2)
            assert keeper.state == "starting"

    run(story)


def test_a_start_that_fails_is_tried_again() -> None:
    async def story() -> None:
        sleeper = Sleeper()
        sleeper.cannot_start = "the fork server is away"
        async with kept(sleeper) as keeper:
            await until(lambda: keeper.problem != "")
            with pytest.raises(TargetError, match="not running"):
                keeper.signal(signal.SIGKILL)
            sleeper.cannot_start = ""
            await until(lambda: keeper.state == "ready")

    run(story)


def test_ports_are_free_distinct_and_below_the_ephemeral_range() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = list(islice(free_ports(), 200))
    assert len(set(found)) == 200
    assert not any(low <= port <= high for port in found)
    with socket.create_server(("127.0.0.1", found[0])):
        assert not is_free(found[0])


def test_every_link_leads_to_a_part_and_the_front_door_has_the_chosen_port(tmp_path: Path) -> None:
    layout = choose_layout(tmp_path, tmp_path, 23456)
    assert layout.listen(CLIENT_LINK) == "127.0.0.1:23456"
    forwards = {int(link["forward"].rpartition(":")[2]) for link in layout.links.values()}
    listens = [link["listen"] for link in layout.links.values()]
    # A link of one replica leads to that of all of them.
    assert forwards <= set(layout.ports.values()) | {int(one.rpartition(":")[2]) for one in listens}
    assert len({*listens, *(f"127.0.0.1:{port}" for port in layout.ports.values())}) == len(listens) + len(
        layout.ports
    )


def test_recycled_pid_has_another_identity() -> None:
    me = identity(os.getpid())
    assert is_same(me)
    assert not is_same({**me, "started": me["started"] + 1})
    child = subprocess.Popen([sys.executable, "-c", ""])
    was = identity(child.pid)
    child.wait(10)
    assert not is_same(was)

"""The prober's connection monitor: when it records a service's end between two questions, and when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import probe_service
import pytest
import uvloop
from test_prober import SMALL_BACKLOG, Probing, probing

from monkeyproof.clock import Anchor, wait_for
from monkeyproof.probes.prober.connection_monitor import REST_S, ConnectionMonitor, SilentConnection
from monkeyproof.record.history import EVENTS_FILE, Event, HistoryWriter, Kind, parse_events
from monkeyproof.record.readings import SignalState

GONE, REACHABLE = Kind.SERVICE_GONE, Kind.SERVICE_REACHABLE


def said(folder: Path) -> list[Event]:
    return list(parse_events((folder / EVENTS_FILE).read_bytes()))


@pytest.fixture
def service() -> Iterator[probe_service.Handle]:
    with probe_service.running() as handle:
        yield handle


@pytest.fixture
def prober(service: probe_service.Handle, tmp_path: Path) -> Iterator[Probing]:
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as found:
        found.wait(20)
        yield found


def kill_again_and_again(folder: Path, times: int) -> list[float]:
    """How long after a SIGKILL of the service the prober saw it gone, in ms, of those that it saw."""
    late_ms: list[float] = []
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(probe_service.running())
        prober = stack.enter_context(probing(folder, probe_service.write_target(folder, service.port)))
        for _ in range(times):
            # It looks again only after a rest, and only where there is a connection that can end.
            prober.wait(10, time.monotonic() + REST_S)
            count = len(said(folder))
            killed_s = service.kill()
            service.process.wait()
            if wait_for(lambda count=count: len(said(folder)) > count, within_s=0.6):  # type: ignore[misc]
                assert said(folder)[-1].kind is GONE
                late_ms.append((said(folder)[-1].t_s + prober.anchor_s - killed_s) * 1000.0)
            service = stack.enter_context(probe_service.running(service.port))
    return late_ms


def test_a_killed_service_is_seen_at_once(tmp_path: Path) -> None:
    """Each time, unless it was killed in the moment between one connection's last use and the next one's first."""
    with ThreadPoolExecutor() as threads:
        lanes = threads.map(kill_again_and_again, (tmp_path / "a", tmp_path / "b"), (5, 5))
    late_ms = [each_ms for lane in lanes for each_ms in lane]
    assert len(late_ms) >= 7
    assert min(late_ms) > 0
    assert sorted(late_ms)[len(late_ms) // 2] < 50.0


def test_absence_and_return_are_dated_to_when_they_happened(
    service: probe_service.Handle, prober: Probing
) -> None:
    # One that takes longer than HOLDS_AFTER_S from ending its connections to ending its listener, as on a busy
    # machine, is not called gone.
    for _ in range(3):
        went = service.tell("dark")
        if wait_for(lambda: len(said(prober.folder)) == 1, within_s=2):
            break
        service.tell("good")
        prober.wait(20, time.monotonic() + REST_S)
    came = service.tell("good")
    assert wait_for(lambda: len(said(prober.folder)) == 2, within_s=5)
    gone, reachable = said(prober.folder)
    assert (gone.kind, reachable.kind) == (GONE, REACHABLE)
    assert gone.subject == f"127.0.0.1:{service.port}"
    assert gone.data["how"] in ("refused", "closed at once")
    assert went["before_s"] < gone.t_s + prober.anchor_s < went["done_s"] + 0.1
    proven_s = gone.t_s + gone.data["proven_after_ms"] / 1000.0
    assert went["before_s"] < proven_s + prober.anchor_s < came["before_s"]
    assert came["before_s"] < reachable.t_s + prober.anchor_s < came["done_s"] + 0.5


def test_what_is_no_death_is_not_called_one(service: probe_service.Handle, prober: Probing) -> None:
    """Idle connections closed, every answer a reset, a server that hangs: each of them can be connected to."""
    service.tell("close_idle")
    prober.wait(10, time.monotonic() + REST_S)
    service.tell("reset")
    prober.wait(60, time.monotonic())
    service.tell("good")
    prober.wait(10, time.monotonic())
    service.pause()
    prober.wait(20, time.monotonic())
    service.resume()
    prober.wait(10, time.monotonic() + 0.5)
    prober.end()
    assert said(prober.folder) == []


def test_a_service_with_one_connection_is_not_disturbed(tmp_path: Path) -> None:
    """An idle connection would have such a service wait for a question on it, and answer no other client."""
    small = subprocess.Popen([sys.executable, "-c", SMALL_BACKLOG], stdout=subprocess.PIPE, text=True)
    try:
        assert small.stdout is not None
        target = probe_service.write_target(tmp_path, int(small.stdout.readline()))
        with probing(tmp_path, target) as prober:
            found = prober.wait(100)
        assert (found.good == SignalState.GOOD).sum() > 90
        assert said(tmp_path) == []
    finally:
        small.kill()
        small.communicate()


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


def test_a_proxy_that_accepts_and_closes_is_absent_once(tmp_path: Path) -> None:
    """It is asked again and again, one connection at a time, and two lines are all that stands in the history."""
    accepted_s: list[float] = []
    closing = True

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted_s.append(time.monotonic())
        if closing:
            await asyncio.sleep(0.005)  # As long as a proxy takes to find its backend dead.
        else:
            await reader.read()
        writer.close()

    async def run() -> None:
        nonlocal closing
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection_monitor = ConnectionMonitor(
            "127.0.0.1", port, HistoryWriter(tmp_path, Anchor(0.0, ""), "prober")
        )
        began_s = time.monotonic()
        while time.monotonic() < began_s + 0.5:
            connection_monitor.lost(time.monotonic())  # As often as the prober's own connections are closed.
            await asyncio.sleep(0.005)
        connection_monitor.flush()
        (gone,) = said(tmp_path)
        assert (gone.kind, gone.data["how"]) == (GONE, "closed at once")
        assert began_s <= gone.t_s < began_s + 0.1
        assert 2 < len(accepted_s) < 15
        closing = False
        await until(lambda: connection_monitor.flush() or len(said(tmp_path)) == 2)
        # The monitor checks it again only after a rest.
        count = len(accepted_s)
        for _ in range(20):
            connection_monitor.lost(time.monotonic())
            await asyncio.sleep(0.005)
        assert len(accepted_s) == count
        connection_monitor.close()
        server.close()

    uvloop.run(run())
    assert [event.kind for event in said(tmp_path)] == [GONE, REACHABLE]


def test_a_full_disk_costs_the_event_and_no_reading(service: probe_service.Handle, tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).symlink_to("/dev/full")
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        prober.wait(10)
        service.tell("dark")
        prober.wait(30, time.monotonic())
        service.tell("good")
        prober.wait(10, time.monotonic())
        prober.end()


def test_whatever_else_fails_about_it_stays_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail(_: ConnectionMonitor) -> None:
        raise ValueError("a surprise")

    async def run() -> list[dict[str, Any]]:
        surprises: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: surprises.append(context))
        connection_monitor = ConnectionMonitor("127.0.0.1", 1, HistoryWriter(tmp_path, Anchor(0.0, ""), "prober"))
        connection_monitor.lost(time.monotonic())
        await until(lambda: connection_monitor._checking is not None and connection_monitor._checking.done())
        connection_monitor.close()
        return surprises

    monkeypatch.setattr(ConnectionMonitor, "_attempt", fail)
    assert not uvloop.run(run())
    assert "the connection monitor failed: ValueError('a surprise')" in capfd.readouterr().err
    assert said(tmp_path) == []


def test_a_connection_that_met_itself_has_ended() -> None:
    """Linux connects a client to itself where it gets the very port that it asks for, and no process listens."""

    async def run() -> bool:
        alone = socket.socket()
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        alone.setblocking(False)
        line = SilentConnection(asyncio.get_running_loop().create_future())
        await asyncio.get_running_loop().create_connection(lambda: line, sock=alone)
        return line.ended_s.done()

    assert uvloop.run(run())

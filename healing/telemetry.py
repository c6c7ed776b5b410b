"""Monitor (the M of MAPE-K): one frozen Sample of the target about every quarter of a second.

The collector asks every part at every tick, all at once, each with a time limit of its own, and waits for none of
them: a request that is in flight when the sample is taken shows as "at least this slow", and is counted again when
it ends. What did not arrive is None: unknown, which is neither zero nor healthy.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from monkeyproof.healing.samples import (
    Canary,
    CanaryResult,
    Metrics,
    ReplicaSample,
    Sample,
    body_of,
    choose_canaries,
    count_right,
    parse_metrics,
    read_canaries,
)
from monkeyproof.targets.port import Replica, Replicas, Target, Telemetry, require

TICK_S = 0.25
COLLECT_S = 0.2
"""How long a sample waits for the answers to its own requests."""
ASK_TIMEOUT_S = 1.0
SCRAPE_TIMEOUT_S = 0.8
MOST_IN_FLIGHT = 5
STORE_LINK = "replica->features"

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Run blocking work in a daemon thread, so that the process can end even if the work hangs."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return  # Its caller cancelled it. (Once it runs, it cannot be cancelled.)
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True, name="healer-action").start()
    return future


class Poll(Generic[T]):
    """One question that is asked again and again, without waiting for the answer to the last one."""

    def __init__(self, ask: Callable[[], Awaitable[T]], timeout_s: float, most_in_flight: int = 1) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._most = most_in_flight
        self._in_flight: list[tuple[float, asyncio.Task[T]]] = []

    def start(self) -> None:
        if len(self._in_flight) < self._most:
            task = asyncio.create_task(self._bounded())
            self._in_flight.append((time.monotonic(), task))

    async def _bounded(self) -> T:
        async with asyncio.timeout(self._timeout_s):
            return await self._ask()

    @property
    def tasks(self) -> list[asyncio.Task[T]]:
        return [task for _, task in self._in_flight]

    def collect(self) -> tuple[list[T], int, float]:
        """What ended since the last call: answers, how many failed; and the age of the oldest one in flight."""
        ended = [task for _, task in self._in_flight if task.done()]
        self._in_flight = [(started_s, task) for started_s, task in self._in_flight if not task.done()]
        answers = [task.result() for task in ended if not task.cancelled() and task.exception() is None]
        age_s = time.monotonic() - self._in_flight[0][0] if self._in_flight else 0.0
        return answers, len(ended) - len(answers), age_s

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()


@dataclass
class _Path:
    """A path along which canaries are sent, and how many times they were."""

    poll: Poll[CanaryResult] = field(init=False)
    turn: int = 0

    def collect(self) -> CanaryResult:
        answers, failures, age_s = self.poll.collect()
        in_flight_ms = [age_s * 1000.0] if age_s else []
        slowest = [answer.latency_ms for answer in answers if answer.latency_ms is not None]
        late = [ASK_TIMEOUT_S * 1000.0] if failures else []
        reasons = [answer.why for answer in answers if answer.why] + ["no answer in time"] * bool(failures)
        return CanaryResult(
            right=sum(answer.right for answer in answers),
            wrong=sum(answer.wrong for answer in answers),
            failed=sum(answer.failed for answer in answers) + failures,
            latency_ms=max([*in_flight_ms, *slowest, *late], default=None),
            versions=frozenset[str]().union(*(answer.versions for answer in answers)),
            fallback=any(answer.fallback for answer in answers),
            why=reasons[-1] if reasons else "",
        )


class TelemetryCollector:
    """Takes samples of one target. Use as an async context manager."""

    def __init__(self, target: Target) -> None:
        self._file = target.file
        telemetry = require(target, Telemetry)
        self._replicas = target.find(Replicas)
        self.canaries = read_canaries(telemetry.canary())
        self._canary_url = telemetry.canary_url()
        self._scraped = {name: self._scraper(url) for name, url in telemetry.metrics_urls().items()}
        self._listing = Poll(self._list, ASK_TIMEOUT_S)
        self._store = Poll(self._ask_store, SCRAPE_TIMEOUT_S)
        self._paths: dict[str, _Path] = {"": self._path(self._canary_url, 0)}
        self._listed: tuple[float, Sequence[Replica]] = (-1e9, ())

    async def __aenter__(self) -> TelemetryCollector:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(timeout=ASK_TIMEOUT_S, limits=limits, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        polls = self._polls()
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*(task for poll in polls for task in poll.tasks), return_exceptions=True)
        await self._http.aclose()

    async def sample(self, late_ms: float = 0.0) -> Sample:
        """Ask every part, wait for COLLECT_S, and return what is known now."""
        polls = self._polls()
        for poll in polls:
            poll.start()
        waiting = [task for poll in polls for task in poll.tasks]
        began_s = time.monotonic()
        await asyncio.wait(waiting, timeout=COLLECT_S)
        overrun_ms = (time.monotonic() - began_s - COLLECT_S) * 1000.0
        return self._sample(max(late_ms, overrun_ms))

    def _polls(self) -> list[Poll[Any]]:
        """All requests that this target can be sent."""
        listing = [self._listing] if self._replicas is not None else []
        store = [self._store] if STORE_LINK in self._file.links else []
        return [*self._scraped.values(), *(path.poll for path in self._paths.values()), *listing, *store]

    def _sample(self, late_ms: float) -> Sample:
        now_s = time.monotonic()
        metrics = {name: next(iter(poll.collect()[0]), None) for name, poll in self._scraped.items()}
        for listed in self._listing.collect()[0]:
            self._listed = (now_s, listed)
        replicas: dict[str, ReplicaSample] | None = None
        if now_s - self._listed[0] < ASK_TIMEOUT_S:
            replicas = {}
            for number, replica in enumerate(self._listed[1], start=1):
                replicas[replica.name] = ReplicaSample(
                    replica.name,
                    replica.state,
                    replica.drained,
                    replica.starts,
                    self._canary_result(replica, number),
                    metrics.get(replica.name),
                )
        store = self._store.collect()
        store_ok = (
            False if store[1] or store[2] * 1000.0 > COLLECT_S * 900.0 else (all(store[0]) if store[0] else None)
        )
        return Sample(now_s, self._paths[""].collect(), replicas, metrics.get("pipeline"), store_ok, late_ms)

    def _canary_result(self, replica: Replica, number: int) -> CanaryResult:
        if replica.name not in self._paths:
            link = self._file.links.get(replica.link)
            if link is None:
                return CanaryResult()
            url = f"http://{link.listen}{urlsplit(self._canary_url).path}"
            self._paths[replica.name] = self._path(url, number * 7)
        return self._paths[replica.name].collect()

    def _path(self, url: str, turn: int) -> _Path:
        path = _Path(turn=turn)

        async def ask() -> CanaryResult:
            path.turn += 1
            return await self._ask(url, choose_canaries(self.canaries, path.turn))

        path.poll = Poll(ask, ASK_TIMEOUT_S, MOST_IN_FLIGHT)
        return path

    async def _ask(self, url: str, canaries: Sequence[Canary]) -> CanaryResult:
        predict = self._file.predict
        began_s = time.monotonic()
        try:
            response = await self._http.request(
                predict.method, url, json=body_of(canaries), headers=dict(predict.headers)
            )
        except httpx.HTTPError as error:
            took_ms = (time.monotonic() - began_s) * 1000.0
            return CanaryResult(failed=1, latency_ms=took_ms, why=str(error) or type(error).__name__)
        took_ms = (time.monotonic() - began_s) * 1000.0
        if not response.is_success:
            return CanaryResult(failed=1, latency_ms=took_ms, why=f"HTTP {response.status_code}")
        right = count_right(response.content, canaries)
        version = response.headers.get(predict.model_version or "-", "")
        degraded = response.headers.get(predict.degraded or "-", "")
        return CanaryResult(
            right=right,
            wrong=len(canaries) - right,
            latency_ms=took_ms,
            versions=frozenset({version} - {""}),
            fallback=degraded == "fallback",
        )

    def _scraper(self, url: str) -> Poll[Metrics]:
        async def scrape() -> Metrics:
            response = await self._http.get(url)
            response.raise_for_status()
            return parse_metrics(response.text)

        return Poll(scrape, SCRAPE_TIMEOUT_S)

    async def _list(self) -> Sequence[Replica]:
        assert self._replicas is not None
        return await asyncio.wrap_future(in_thread(self._replicas.list))

    async def _ask_store(self) -> bool:
        host, _, port = self._file.links[STORE_LINK].listen.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        finally:
            writer.close()

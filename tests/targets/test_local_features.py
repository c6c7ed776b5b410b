"""How a replica reads features when connections break under it. On uvloop, as replicas run."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import uvloop

from monkeyproof.targets.local.workload.features import FAIL_FAST_S, FeatureReader, connect, encode

ROW = np.arange(9.0)
TIMEOUT_S = 0.2


class FakeStore:
    """Speaks as much of the protocol as MGET of one key needs, and can reset every connection."""

    def __init__(self) -> None:
        self.port = 0
        self.answer = b"*1\r\n$72\r\n" + encode(ROW) + b"\r\n"
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while (await reader.read(4096)).startswith(b"*2\r\n$4\r\nMGET"):
            await asyncio.sleep(0.01)  # So that questions at the same time need several connections.
            writer.write(self.answer)

    async def reset_all(self) -> None:
        """End each connection with a reset, not with an end-of-file."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0.02)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.reset_all()


def with_store(body: Callable[[FakeStore, FeatureReader], Awaitable[None]], *, ttl_s: float = 0.0) -> int:
    """Run ``body``; returns how many requests had to do without the store."""
    errors: list[None] = []

    async def run() -> None:
        store = FakeStore()
        await store.open()
        reader = FeatureReader(
            connect("127.0.0.1", store.port, TIMEOUT_S),
            Path("/nonexistent/serving.json"),
            Path("/nonexistent"),
            ttl_s=ttl_s,
            timeout_s=TIMEOUT_S,
            on_error=lambda: errors.append(None),
        )
        try:
            await body(store, reader)
        finally:
            await reader.close()
            await store.close()

    uvloop.run(asyncio.wait_for(run(), 20))
    return len(errors)


async def origins(reader: FeatureReader, count: int) -> list[str]:
    """Of questions asked at the same time."""
    answers = await asyncio.gather(*(reader.read([f"e-{number}"]) for number in range(count)))
    return [found[0] for _, found in answers]


def test_connections_that_were_reset_while_idle_cost_no_answer() -> None:
    async def body(store: FakeStore, reader: FeatureReader) -> None:
        for _ in range(5):
            assert await origins(reader, 6) == ["live"] * 6
            await store.reset_all()

    assert with_store(body) == 0


def test_resets_never_raise_and_the_store_is_used_again_at_once() -> None:
    async def body(store: FakeStore, reader: FeatureReader) -> None:
        rng = np.random.default_rng(3)
        for _ in range(20):
            asking = asyncio.gather(*(origins(reader, 3) for _ in range(2)))
            await asyncio.sleep(rng.uniform(0, 0.015))
            await store.reset_all()
            for found in await asking:
                assert set(found) <= {"live", "fallback"}
        await asyncio.sleep(FAIL_FAST_S + 0.05)
        assert await origins(reader, 6) == ["live"] * 6

    with_store(body)


def test_store_outage_causes_no_wait_and_no_expired_values() -> None:
    async def body(store: FakeStore, reader: FeatureReader) -> None:
        assert await origins(reader, 4) == ["live"] * 4
        await store.close()
        assert await origins(reader, 4) == ["cached"] * 4
        await asyncio.sleep(0.1)
        began_s = time.monotonic()
        for _ in range(50):
            values, found = await reader.read(["e-1"])
            assert found == ["fallback"]
            assert not values.any()
        assert time.monotonic() - began_s < 0.5
        await store.open()
        await asyncio.sleep(FAIL_FAST_S + 0.05)
        values, found = await reader.read(["e-1"])
        assert found == ["live"]
        assert values[0].tolist() == ROW.tolist()

    assert with_store(body, ttl_s=0.1) == 50


def test_one_entity_asked_for_twice_is_fetched_once() -> None:
    async def body(_: FakeStore, reader: FeatureReader) -> None:
        values, found = await reader.read(["e-1", "e-1"])  # The fake store gives exactly one row.
        assert found == ["live", "live"]
        assert values.shape == (2, 9)

    assert with_store(body) == 0


@pytest.mark.parametrize(
    "answer", [b"*0\r\n", b":5\r\n", b"*1\r\n$3\r\nabc\r\n", b"-ERR no\r\n", b"what?\r\n", b"*1\r\n$72\r\n"]
)
def test_malformed_store_answer_counts_as_none(answer: bytes) -> None:
    async def body(store: FakeStore, reader: FeatureReader) -> None:
        whole, store.answer = store.answer, answer
        assert await origins(reader, 1) == ["fallback"]
        store.answer = whole
        await asyncio.sleep(FAIL_FAST_S + 0.05)
        assert await origins(reader, 1) == ["live"]

    with_store(body)

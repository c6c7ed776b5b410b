"""Where a replica reads features: the store, a short-lived cache, a snapshot, or default values.

The default values (zeros) are the failure that this project exists for: when the store cannot be asked, the
answer is still HTTP 200, fast, and silently wrong. What is known to be stale is not used instead, because a
real service bounds the age of what it decides on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from monkeyproof.targets.local.models.data import N_FEATURES, UNREADABLE_NPZ, Floats

MAX_CACHED = 10_000
POOL_SIZE = 8
FAIL_FAST_S = 0.15
"""After a failure the store is not asked again for so long: callers must not queue up for a time-out each."""
SERVING_POLL_S = 0.05
ORIGINS = ("live", "cached", "snapshot", "fallback")
"""Best first."""
_DEFAULT = np.zeros(N_FEATURES)

log = logging.getLogger(__name__)


def key_of(entity: str) -> str:
    """Where the store keeps an entity's features."""
    return f"features:{entity}"


def encode(values: Sequence[float] | Floats) -> bytes:
    """Features as the store keeps them: little-endian float64."""
    return np.asarray(values, dtype="<f8").tobytes()


def decode(stored: object) -> Floats | None:
    """What ``encode`` made; None if it is missing or of another length."""
    if not isinstance(stored, bytes) or len(stored) != 8 * N_FEATURES:
        return None
    return np.frombuffer(stored, dtype="<f8")


def connect(host: str, port: int, timeout_s: float, pool_size: int = POOL_SIZE) -> redis.asyncio.Redis:
    """A client that fails within ``timeout_s``: no retries, no growing pool, no chatter when it connects."""
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=pool_size,
        timeout=timeout_s,
        host=host,
        port=port,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        protocol=2,
    )
    return redis.asyncio.Redis(connection_pool=pool)


# RuntimeError is what uvloop raises on a connection that was reset a moment ago.
BROKEN_CONNECTION = (redis.ConnectionError, OSError, RuntimeError)
STORE_ERRORS = (redis.RedisError, *BROKEN_CONNECTION)


@dataclass(frozen=True, slots=True)
class ServingMode:
    """Where replicas read features, by DIR/serving.json."""

    mode: str = "live"
    snapshot: str = ""
    generation: int = 0

    @classmethod
    def parse(cls, text: str) -> ServingMode:
        """Raises ValueError if it is not understood."""
        raw = json.loads(text)
        try:
            serving = cls(str(raw["mode"]), str(raw.get("snapshot", "")), int(raw.get("generation", 0)))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a serving configuration: {error!r}") from None
        if serving.mode not in ("live", "snapshot"):
            raise ValueError(f"mode {serving.mode!r} is neither live nor snapshot")
        return serving


class FeatureReader:
    """Features for entities, each with its origin. Belongs to one event loop."""

    def __init__(
        self,
        store: redis.asyncio.Redis,
        serving_file: Path,
        snapshots_dir: Path,
        *,
        ttl_s: float,
        timeout_s: float,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._serving_file = serving_file
        self._snapshots_dir = snapshots_dir
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._cache: dict[str, tuple[float, Floats]] = {}
        self._retry_at_s = 0.0
        self._serving = ServingMode()
        self._snapshot: Mapping[str, Floats] = {}
        self._file_stamp: tuple[int, int, int] | None = None
        self._on_error = on_error

    async def read(self, entities: Sequence[str]) -> tuple[Floats, list[str]]:
        """One row and one origin for each entity. Never raises, never takes much longer than the time-out."""
        if self._serving.mode == "snapshot":
            known = self._snapshot
            origins = ["snapshot" if entity in known else "fallback" for entity in entities]
            return np.array([known.get(entity, _DEFAULT) for entity in entities]), origins
        now_s = time.monotonic()
        rows: dict[str, tuple[Floats, str]] = {}
        for entity in entities:
            expires_s, values = self._cache.get(entity, (0.0, _DEFAULT))
            if expires_s > now_s:
                rows[entity] = (values, "cached")
        missing = [entity for entity in dict.fromkeys(entities) if entity not in rows]
        if missing:
            rows |= await self._ask_store(missing)
        got = [rows.get(entity, (_DEFAULT, "fallback")) for entity in entities]
        return np.array([values for values, _ in got]), [origin for _, origin in got]

    async def _ask_store(self, entities: Sequence[str]) -> dict[str, tuple[Floats, str]]:
        generation = self._serving.generation
        if time.monotonic() < self._retry_at_s:
            self._on_error()
            return {}
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._mget([key_of(entity) for entity in entities])
            if not isinstance(answer, list) or len(answer) != len(entities):
                raise redis.InvalidResponse(f"{len(entities)} keys, but the answer is {answer!r:.60}")
        except STORE_ERRORS:
            self._retry_at_s = time.monotonic() + FAIL_FAST_S
            self._on_error()
            return {}
        found = {}
        expires_s = time.monotonic() + self._ttl_s
        for entity, stored in zip(entities, answer, strict=True):
            if (values := decode(stored)) is not None:
                found[entity] = (values, "live")
        # An answer to a question from before "forget" must not enter the cache after it.
        if self._ttl_s > 0 and generation == self._serving.generation:
            if len(self._cache) + len(found) > MAX_CACHED:
                self._cache.clear()
            self._cache.update({entity: (expires_s, values) for entity, (values, _) in found.items()})
        return found

    async def _mget(self, keys: Sequence[str]) -> object:
        try:
            return await self._store.mget(keys)
        except BROKEN_CONNECTION:
            # A connection that broke while idle fails only now, and the others may, too: drop them all.
            with contextlib.suppress(*STORE_ERRORS):
                await self._store.connection_pool.disconnect(inuse_connections=False)
            return await self._store.mget(keys)

    async def follow_serving_file(self) -> None:
        """Apply changes of the serving file until cancelled."""
        while True:
            self.read_serving_file()
            await asyncio.sleep(SERVING_POLL_S)

    def read_serving_file(self) -> None:
        """Apply the serving file if it has changed; a faulty one changes nothing."""
        try:
            status = self._serving_file.stat()
        except OSError:
            return  # Not there yet, or just being replaced.
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp == self._file_stamp:
            return
        self._file_stamp = stamp
        try:
            serving = ServingMode.parse(self._serving_file.read_text())
            if serving.mode == "snapshot":
                self._snapshot = _load_snapshot(self._snapshots_dir / f"{Path(serving.snapshot).name}.npz")
        except UNREADABLE_NPZ as error:
            log.warning("%s: %s", self._serving_file, error)
            return
        if serving.generation != self._serving.generation:
            self._cache.clear()
        self._serving = serving

    async def close(self) -> None:
        """Close the connections."""
        await self._store.aclose()
        await self._store.connection_pool.disconnect()


def _load_snapshot(path: Path) -> Mapping[str, Floats]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(zip(map(str, stored["entities"]), stored["values"], strict=True))

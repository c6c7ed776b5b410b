"""The online feature store, asked directly: past the links that a fault can sit on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.models.data import N_FEATURES, Floats
from monkeyproof.targets.port import LabelledAnswer

KEY_PREFIX = "features:"
FEEDBACK_STREAM = "feedback"
TIMEOUT_S = 3.0
_CHUNK = 500


class FeatureStore:
    """``port.Features``, ``Snapshots`` and ``Feedback``, on a Redis-protocol server and a folder of snapshots."""

    def __init__(self, port: int, snapshots: Path) -> None:
        self._port = port
        self._folder = snapshots
        self._connection: Any = None

    def read(self, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        found: dict[str, Sequence[float] | None] = {}
        with self._client() as client:
            for start in range(0, len(entities), _CHUNK):
                chunk = entities[start : start + _CHUNK]
                stored = client.mget([KEY_PREFIX + entity for entity in chunk])
                found |= {entity: _unpack(raw) for entity, raw in zip(chunk, stored, strict=True)}
        return found

    def snapshots(self) -> Sequence[str]:
        oldest_first = sorted(self._folder.glob("*.npz"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return tuple(path.stem for path in oldest_first)

    def take_snapshot(self) -> str:
        with self._client() as client:
            keys = [key.decode() for key in client.scan_iter(match=KEY_PREFIX + "*", count=_CHUNK)]
        entities = sorted(key.removeprefix(KEY_PREFIX) for key in keys)
        stored = {entity: values for entity, values in self.read(entities).items() if values is not None}
        if not stored:
            raise TargetError("the feature store is empty: nothing to take a snapshot of")
        number = 1
        while (self._folder / f"taken-{number:04d}.npz").exists():
            number += 1
        self.save_snapshot(f"taken-{number:04d}", list(stored), np.array(list(stored.values())))
        return f"taken-{number:04d}"

    def save_snapshot(self, name: str, entities: Sequence[str], values: Floats) -> None:
        """Write a snapshot, whole or not at all: replicas may be reading the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=self._folder)
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, entities=np.array(entities), values=values)
        Path(draft).rename(self._folder / f"{name}.npz")

    def read_snapshot(self, snapshot: str, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        names, values = self.load_snapshot(snapshot)
        rows = {name: row for row, name in enumerate(names)}
        return {entity: values[rows[entity]].tolist() if entity in rows else None for entity in entities}

    def load_snapshot(self, snapshot: str) -> tuple[Sequence[str], Floats]:
        """Entities of a snapshot, and their features in the same order."""
        if snapshot not in self.snapshots():
            raise TargetError(f"{snapshot!r}: no such snapshot; there are {', '.join(self.snapshots()) or 'none'}")
        try:
            with np.load(self._folder / f"{snapshot}.npz", allow_pickle=False) as stored:
                return [str(name) for name in stored["entities"]], stored["values"].astype(np.float64)
        except (OSError, ValueError, KeyError) as error:
            raise TargetError(f"snapshot {snapshot!r} cannot be read ({error})") from None

    def delete_snapshot(self, snapshot: str) -> None:
        (self._folder / f"{snapshot}.npz").unlink(missing_ok=True)

    def restore(self, snapshot: str) -> int:
        names, values = self.load_snapshot(snapshot)
        self.write(names, values)
        return len(names)

    def write(self, entities: Sequence[str], values: Floats) -> None:
        """Set the features of these entities."""
        packed = np.ascontiguousarray(values, dtype="<f8")
        with self._client() as client:
            for start in range(0, len(entities), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(entities)))
                client.mset({KEY_PREFIX + entities[row]: packed[row].tobytes() for row in rows})

    def forget_all_but(self, entities: Sequence[str]) -> int:
        """Delete the features of all others; returns how many these were."""
        wanted = {f"{KEY_PREFIX}{entity}".encode() for entity in entities}
        with self._client() as client:
            stored = client.scan_iter(match=KEY_PREFIX + "*", count=len(wanted) + _CHUNK)
            others = [key for key in stored if key not in wanted]
            return int(client.delete(*others)) if others else 0

    def latest(self, count: int) -> Sequence[LabelledAnswer]:
        with self._client() as client:
            entries = client.xrevrange(FEEDBACK_STREAM, count=count)
        return [
            LabelledAnswer(
                int(one[b"position"]), one[b"entity"].decode(), int(one[b"predicted"]), int(one[b"label"])
            )
            for _, one in entries
        ]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        import redis

        if self._connection is None:
            self._connection = redis.Redis(
                host="127.0.0.1", port=self._port, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
        try:
            yield self._connection
        except redis.RedisError as error:
            raise TargetError(f"the feature store at 127.0.0.1:{self._port} does not answer ({error})") from None


def _unpack(raw: bytes | None) -> Sequence[float] | None:
    if raw is None:
        return None
    if len(raw) != 8 * N_FEATURES:
        raise TargetError(f"the feature store holds {len(raw)} bytes where {8 * N_FEATURES} are features")
    values: list[float] = np.frombuffer(raw, dtype="<f8").tolist()
    return values

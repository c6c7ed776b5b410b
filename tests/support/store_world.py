"""The feature store of the tests of its faults: a real Valkey, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import redis

PASSWORD = "correct horse"
ENTITIES = [f"e{number}" for number in range(24)]


def vector(number: float) -> bytes:
    """Three features."""
    return np.array([number, number + 0.25, -number], dtype="<f8").tobytes()


@dataclass
class Store:
    """A Valkey server, asked past the proxy."""

    port: int
    direct: redis.Redis

    def fill(self) -> None:
        self.direct.flushall()
        self.direct.mset({name: vector(number) for number, name in enumerate(ENTITIES)})
        for number in range(6):
            self.direct.hset(f"row{number}", mapping={"a": vector(number), "b": vector(-number), "c": str(number)})

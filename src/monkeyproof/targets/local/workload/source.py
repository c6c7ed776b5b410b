"""The source of new records: real ones, repeated at a steady rate.

    python -m monkeyproof.targets.local.workload.source --config DIR/source.json

Like a topic with a short retention: ``GET /records?after=POSITION&limit=N``. A position is the number of records
that this machine's clock has released since it started, so that positions grow for ever, also across restarts,
and the source stores no state. Records older than one round through all entities are dropped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, with_config

from monkeyproof.clock import Clock, SystemClock
from monkeyproof.errors import UsageError
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.workload.settings import read_settings
from monkeyproof.types import Json

MAX_LIMIT = 1500
DEFAULT_LIMIT = 300
KEEP_ALIVE_S = 75


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class SourceSettings:
    """DIR/source.json."""

    port: int
    data: Path
    records_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1500.0
    seed: int = 0


class RecordStream:
    """Yields every entity once a round, always in the same order: each is refreshed after the same time."""

    def __init__(self, entities: Entities, records_per_s: float, seed: int, clock: Clock | None = None) -> None:
        self._entities = entities
        self._records_per_s = records_per_s
        self._order = np.random.default_rng(seed).permutation(len(entities))
        self._clock = clock or SystemClock()

    def after(self, position: int, limit: int) -> Sequence[dict[str, Json]]:
        """Released records after ``position``, oldest first, as far as they are still kept."""
        newest = int(self._clock.monotonic_s() * self._records_per_s)
        first = max(position + 1, newest - len(self._entities) + 1, 0)
        return [self._record(one) for one in range(first, min(first + limit, newest + 1))]

    def _record(self, position: int) -> dict[str, Json]:
        row = int(self._order[position % len(self._order)])
        return {
            "position": position,
            "entity": self._entities.names[row],
            "features": self._entities.values[row].tolist(),
            "label": int(self._entities.labels[row]),
        }


def serve(settings: SourceSettings) -> None:
    """Answer until SIGTERM."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    stream = RecordStream(Entities.load(settings.data), settings.records_per_s, settings.seed)

    async def records(request: Request) -> Response:
        try:
            after = int(request.query_params.get("after", "-1"))
            limit = int(request.query_params.get("limit", str(DEFAULT_LIMIT)))
        except ValueError:
            return JSONResponse({"error": "after and limit must be whole numbers"}, 400)
        return JSONResponse({"records": stream.after(after, max(0, min(limit, MAX_LIMIT)))})

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    uvicorn.run(
        Starlette(routes=[Route("/records", records)]),
        host="127.0.0.1",
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a steady stream of records.")
    parser.add_argument("--config", type=Path, required=True)
    try:
        serve(read_settings(SourceSettings, parser.parse_args().config))
    except UsageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

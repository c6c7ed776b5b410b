"""Labelled feedback: predictions that users were given, compared with the labels that came later.

Here the label comes with the record. A few entities of each batch are asked about through the front door, as a
user would, so that the accuracy is that of what was really served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import httpx
import numpy as np
import redis.asyncio

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.workload.records import PipelineBatch

GATEWAY_TIMEOUT_S = 1.0
STORE_TIMEOUT_S = 0.5
SAMPLED = 8
ACCURACY_WINDOW = 200
STREAM, STREAM_LENGTH = "feedback", 2000


class GatewayError(TargetError):
    """The front door did not answer, or not with predictions."""


class FeedbackCollector:
    """Asks about entities, compares answers with labels, and appends both to the feedback stream."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        store: redis.asyncio.Redis,
        gateway_url: str,
        rng: np.random.Generator,
        on_accuracy: Callable[[float], None],
    ) -> None:
        self._http = http
        self._store = store
        self._url = f"{gateway_url.rstrip('/').removesuffix('/invocations')}/invocations"
        self._rng = rng
        self._on_accuracy = on_accuracy
        self._recent: deque[bool] = deque(maxlen=ACCURACY_WINDOW)

    async def collect(self, batch: PipelineBatch) -> None:
        """Ask about a few of the batch's entities.

        Raises:
            GatewayError: no predictions came.
            redis.RedisError, OSError: they came, but could not be appended.
        """
        rows = [int(row) for row in self._rng.choice(len(batch), size=min(SAMPLED, len(batch)), replace=False)]
        predictions, version = await self._predictions([batch.entities[row] for row in rows])
        right = [prediction == batch.labels[row] for row, prediction in zip(rows, predictions, strict=True)]
        self._recent.extend(right)
        self._on_accuracy(sum(self._recent) / len(self._recent))
        async with asyncio.timeout(STORE_TIMEOUT_S), self._store.pipeline(transaction=False) as commands:
            for row, prediction in zip(rows, predictions, strict=True):
                commands.xadd(
                    STREAM,
                    {
                        "entity": batch.entities[row],
                        "predicted": prediction,
                        "label": batch.labels[row],
                        "model_version": version,
                        "position": batch.positions[row],
                    },
                    maxlen=STREAM_LENGTH,
                    approximate=True,
                )
            await commands.execute()

    async def _predictions(self, entities: Sequence[str]) -> tuple[list[int], str]:
        question = {"dataframe_records": [{"entity": entity} for entity in entities]}
        try:
            async with asyncio.timeout(GATEWAY_TIMEOUT_S):
                response = await self._http.post(self._url, json=question)
            response.raise_for_status()
            predictions = [int(one) for one in response.json()["predictions"]]
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            raise GatewayError(f"{self._url}: {str(error) or type(error).__name__}") from None
        if len(predictions) != len(entities):
            raise GatewayError(f"{self._url}: {len(entities)} rows got {len(predictions)} predictions")
        return predictions, response.headers.get("X-Model-Version", "")

"""The pipeline: pulls records from the source, validates them, writes features to the store, collects labels.

    python -m monkeyproof.targets.local.workload.pipeline --config DIR/pipeline.json --control SOCK

No failure of a link ends it: it counts the failure, waits and goes on. A batch that could not be written is
fetched again, as long as the source still keeps it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import prometheus_client as prometheus
from pydantic import ConfigDict, Field, with_config

from monkeyproof.errors import UsageError
from monkeyproof.runtime import rpc
from monkeyproof.targets.local.models.data import FEATURES, Entities
from monkeyproof.targets.local.workload.features import STORE_ERRORS, connect, encode, key_of
from monkeyproof.targets.local.workload.feedback import ACCURACY_WINDOW, FeedbackCollector, GatewayError
from monkeyproof.targets.local.workload.records import PipelineBatch, parse_batch, quarantine_batch
from monkeyproof.targets.local.workload.reference import ReferenceStatistics
from monkeyproof.targets.local.workload.settings import read_settings
from monkeyproof.types import Json

SOURCE_TIMEOUT_S = 1.0
STORE_TIMEOUT_S = 0.5
FETCH_LIMIT = 1500
"""Four times what arrives between two polls, so that the pipeline can catch up."""
MAX_BODY_BYTES = 4 * 1024 * 1024
HTTP_ERRORS = (httpx.HTTPError, OSError, TimeoutError)

log = logging.getLogger(__name__)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """DIR/pipeline.json."""

    source_url: str
    features_host: str
    features_port: int
    gateway_url: str
    """The front door, with or without /invocations."""
    metrics_port: int
    reference: Path
    quarantine_dir: Path
    poll_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.4
    seed: int = 0


class PipelineMetrics:
    """The metrics that the pipeline exports."""

    def __init__(self) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = prometheus.CollectorRegistry()
        self.records = prometheus.Counter("pipeline_records", "Records read", registry=registry)
        batches = prometheus.Counter("pipeline_batches", "Batches, by result", ["result"], registry=registry)
        self.batches = {result: batches.labels(result) for result in ("written", "quarantined", "rejected")}
        errors = prometheus.Counter("pipeline_errors", "Failures to reach a part", ["part"], registry=registry)
        self.errors = {part: errors.labels(part) for part in ("source", "store", "gateway")}
        self.mean = prometheus.Gauge(
            "pipeline_feature_mean", "Of the latest batch", ["feature"], registry=registry
        )
        self.robust_z = prometheus.Gauge(
            "pipeline_feature_robust_z",
            "Of the latest batch against the reference",
            ["feature"],
            registry=registry,
        )
        self.out_of_range = prometheus.Gauge(
            "pipeline_feature_out_of_range_share", "Share of values in the latest batch", registry=registry
        )
        # Registered with its first value: an accuracy of 0 that was never measured would raise an alarm.
        self.accuracy = prometheus.Gauge(
            "pipeline_feedback_accuracy", f"Over the last {ACCURACY_WINDOW} labelled answers", registry=None
        )
        self._accuracy_known = False

    def set_accuracy(self, accuracy: float) -> None:
        """The share of right answers among the latest."""
        self.accuracy.set(accuracy)
        if not self._accuracy_known:
            self.registry.register(self.accuracy)
            self._accuracy_known = True


class RecordPipeline:
    """The polling loop; see the module."""

    def __init__(
        self, settings: PipelineSettings, reference: ReferenceStatistics, metrics: PipelineMetrics
    ) -> None:
        self.quarantining = False
        self.batches_written = 0
        self.batches_quarantined = 0
        self.last_position = -1
        self.last_written_position = -1
        self.records_read = 0
        self.batches_rejected = 0
        self.last_rejection = ""
        self._settings = settings
        self._reference = reference
        self._metrics = metrics
        self._http = httpx.AsyncClient(trust_env=False, timeout=SOURCE_TIMEOUT_S)
        self._store = connect(settings.features_host, settings.features_port, STORE_TIMEOUT_S, pool_size=4)
        self._feedback = FeedbackCollector(
            self._http,
            self._store,
            settings.gateway_url,
            np.random.default_rng(settings.seed),
            metrics.set_accuracy,
        )
        self._collecting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Poll at a steady pace until cancelled."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            try:
                await self.step()
            except Exception:  # The stream has to go on, whatever one batch was like.
                log.exception("a step failed")
            # Ticks that were missed in a long step are skipped, not made up for in a burst.
            late_s = (loop.time() - began_s) % self._settings.poll_s
            await asyncio.sleep(self._settings.poll_s - late_s)

    async def step(self) -> None:
        """Fetch, judge and write one batch."""
        try:
            body = await self._fetch()
        except HTTP_ERRORS as error:
            self._failed("source", error)
            return
        try:
            batch = parse_batch(body, self.last_position)
        except ValueError as error:
            # Not skipped: if a link garbled it, the next poll brings it whole; if not, the source forgets it soon.
            log.warning("a batch was rejected: %s", error)
            self._metrics.batches["rejected"].inc()
            self.batches_rejected += 1
            self.last_rejection = str(error)
            return
        if batch is None:
            return
        self._export_statistics(batch)
        why = self._reference.why_unlike(batch.values) if self.quarantining else ""
        if why:
            quarantine_batch(batch, why, self._settings.quarantine_dir)
            self.batches_quarantined += 1
        elif await self._write(batch):
            self.batches_written += 1
            self.last_written_position = batch.last_position
        else:
            return
        self._metrics.batches["quarantined" if why else "written"].inc()
        self._metrics.records.inc(len(batch))
        self.records_read += len(batch)
        self.last_position = batch.last_position
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._collect_feedback(batch))

    async def close(self) -> None:
        """Close the connections."""
        if self._collecting is not None:
            self._collecting.cancel()
        await self._http.aclose()
        await self._store.aclose()
        await self._store.connection_pool.disconnect()

    async def _fetch(self) -> bytes:
        query = {"after": self.last_position, "limit": FETCH_LIMIT}
        body = bytearray()
        async with asyncio.timeout(SOURCE_TIMEOUT_S):
            async with self._http.stream("GET", f"{self._settings.source_url}/records", params=query) as response:
                response.raise_for_status()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise OSError(f"the source's answer is larger than {MAX_BODY_BYTES} bytes")
        return bytes(body)

    def _export_statistics(self, batch: PipelineBatch) -> None:
        means, scores = batch.values.mean(axis=0), self._reference.robust_z(batch.values)
        for name, mean, score in zip(FEATURES, means, scores, strict=True):
            self._metrics.mean.labels(name).set(mean)
            self._metrics.robust_z.labels(name).set(score)
        self._metrics.out_of_range.set(self._reference.out_of_range_share(batch.values))

    async def _write(self, batch: PipelineBatch) -> bool:
        content = {key_of(entity): encode(row) for entity, row in zip(batch.entities, batch.values, strict=True)}
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._store.mset(content)
        except STORE_ERRORS as error:
            self._failed("store", error)
            return False
        return True

    async def _collect_feedback(self, batch: PipelineBatch) -> None:
        try:
            await self._feedback.collect(batch)
        except STORE_ERRORS as error:
            self._failed("store", error)
        except GatewayError as error:
            self._failed("gateway", error)

    def _failed(self, part: str, error: Exception) -> None:
        log.warning("%s: %s", part, str(error) or type(error).__name__)
        self._metrics.errors[part].inc()


class PipelineSession:
    """One connection to the control socket."""

    def __init__(self, pipeline: RecordPipeline) -> None:
        self._pipeline = pipeline

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        match method:
            case "ping":
                return {"pid": os.getpid()}
            case "status":
                return {
                    "quarantining": self._pipeline.quarantining,
                    "batches_written": self._pipeline.batches_written,
                    "batches_quarantined": self._pipeline.batches_quarantined,
                    "last_position": self._pipeline.last_position,
                    "last_written_position": self._pipeline.last_written_position,
                    "records_read": self._pipeline.records_read,
                    "batches_rejected": self._pipeline.batches_rejected,
                    "last_rejection": self._pipeline.last_rejection,
                }
            case "quarantine":
                if not isinstance(params.get("on"), bool):
                    raise ValueError("quarantine: on must be true or false")
                self._pipeline.quarantining = params["on"]
                return {"quarantining": self._pipeline.quarantining}
        raise ValueError(f"{method}: no such method; there are ping, status and quarantine")

    async def closed(self) -> None:
        """The quarantine stays as it was set: a healer may come and go."""


async def serve(settings: PipelineSettings, control: Path) -> None:
    """Run the pipeline and its two ports until it is cancelled."""
    reference = ReferenceStatistics.of(Entities.load(settings.reference).values)
    metrics = PipelineMetrics()
    pipeline = RecordPipeline(settings, reference, metrics)
    prometheus.start_http_server(settings.metrics_port, addr="127.0.0.1", registry=metrics.registry)
    server = await rpc.serve(control, lambda: PipelineSession(pipeline))
    try:
        await pipeline.run()
    finally:
        server.close()
        await pipeline.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep the feature store fresh.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s pipeline %(message)s")
    try:
        asyncio.run(serve(read_settings(PipelineSettings, arguments.config), arguments.control))
    except (UsageError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""One scoring replica: MLflow's scoring protocol over HTTP, features from the store, the champion's model.

Runs in a process that the fork server forked. Its fallbacks are deliberate; see
monkeyproof.targets.local.workload.features.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import prometheus_client as prometheus
import uvicorn
from pydantic import ConfigDict, with_config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monkeyproof.targets.local.models.data import FEATURES, N_FEATURES, Floats
from monkeyproof.targets.local.models.training import predict
from monkeyproof.targets.local.workload.alias_follower import ModelFollower
from monkeyproof.targets.local.workload.features import ORIGINS, FeatureReader, connect
from monkeyproof.targets.local.workload.pins import PINS_FILE, read_pins
from monkeyproof.targets.local.workload.request_formats import entities_of
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json

RECENT_ROWS = 256
MAX_BODY_BYTES = 1024 * 1024
FIRST_POLL_LIMIT_S = 2.0
KEEP_ALIVE_S = 150
"""Longer than the front door keeps idle connections (120 s), which must not meet one that is just being closed."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """DIR/replicas.json."""

    registry_urls: Mapping[str, str]
    """By replica, for each has a link of its own."""
    model: str
    alias: str
    features_host: str
    features_port: int
    serving_file: Path
    snapshots_dir: Path
    poll_s: float = 0.5
    feature_ttl_s: float = 1.0
    feature_timeout_ms: float = 100.0
    registry_timeout_s: float = 2.0


class ReplicaMetrics:
    """The metrics that a replica exports at /metrics."""

    def __init__(self) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter("replica_requests", "Scoring requests", ["code"], registry=registry)
        self.seconds = prometheus.Histogram(
            "replica_request_seconds", "Time to answer", buckets=_BUCKETS, registry=registry
        )
        origins = prometheus.Counter("replica_features", "Rows, by origin", ["origin"], registry=registry)
        self.origins = {origin: origins.labels(origin) for origin in ORIGINS}
        self.feature_errors = prometheus.Counter(
            "replica_feature_errors", "Requests that had to do without the store", registry=registry
        )
        self.version = prometheus.Gauge("replica_model_version", "Version that answers", registry=registry)
        self.pinned = prometheus.Gauge(
            "replica_model_pinned", "Version that it is held to; 0 is none", registry=registry
        )
        self.registry_errors = prometheus.Counter(
            "replica_registry_errors", "Failures to follow the champion", registry=registry
        )
        self._mean = prometheus.Gauge(
            "replica_feature_value_mean", f"Over the last {RECENT_ROWS} rows", ["feature"], registry=registry
        )
        self._spread = prometheus.Gauge(
            "replica_feature_value_robust_spread",
            "1.4826 times the median deviation",
            ["feature"],
            registry=registry,
        )
        self._recent = np.zeros((RECENT_ROWS, N_FEATURES))
        self._rows = 0

    def count_rows(self, values: Floats, origins: list[str]) -> None:
        """Add the rows of a request, shape (n, features), to the recent ones."""
        places = np.arange(self._rows, self._rows + len(values)) % RECENT_ROWS
        self._recent[places[-RECENT_ROWS:]] = values[-RECENT_ROWS:]
        self._rows += len(values)
        for origin in origins:
            self.origins[origin].inc()

    def page(self) -> bytes:
        """The page that is scraped."""
        if self._rows:
            recent = self._recent[: self._rows]
            spread = 1.4826 * np.median(np.abs(recent - np.median(recent, axis=0)), axis=0)
            for name, mean, width in zip(FEATURES, recent.mean(axis=0), spread, strict=True):
                self._mean.labels(name).set(mean)
                self._spread.labels(name).set(width)
        return prometheus.generate_latest(self.registry)


class ReplicaApp:
    """The application's three endpoints."""

    def __init__(self, follower: ModelFollower, features: FeatureReader, metrics: ReplicaMetrics) -> None:
        self._follower = follower
        self._features = features
        self._metrics = metrics

    async def invocations(self, request: Request) -> Response:
        """Predictions for the rows of a request."""
        began_s = time.perf_counter()
        response = await self._score(request)
        self._metrics.seconds.observe(time.perf_counter() - began_s)
        self._metrics.requests.labels(str(response.status_code)).inc()
        return response

    async def _score(self, request: Request) -> Response:
        try:
            entities = entities_of(await _body(request))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        loaded = self._follower.current
        if loaded is None:
            return _json({"error": "no verified model is loaded yet"}, 503)
        values, origins = await self._features.read(entities)
        try:
            predictions = predict(loaded.model, values)
        except Exception as error:  # A model may raise anything; its user gets the message.
            return _json({"error": f"version {loaded.version} failed: {error}"}, 500)
        self._metrics.count_rows(values, origins)
        worst = max(origins, key=ORIGINS.index)
        headers = {"X-Model-Version": loaded.version, "X-Features": worst}
        if worst in ("snapshot", "fallback"):
            headers["X-Degraded"] = worst
        return _json({"predictions": predictions.tolist()}, 200, headers)

    async def ping(self, _: Request) -> Response:
        """200 once a verified champion is loaded."""
        ready = self._follower.current is not None
        return PlainTextResponse("ready\n" if ready else "no model yet\n", 200 if ready else 503)

    async def scrape(self, _: Request) -> Response:
        """The metrics page."""
        self._metrics.version.set(int(self._follower.current.version) if self._follower.current else 0)
        self._metrics.pinned.set(int(self._follower.pinned or 0))
        return Response(self._metrics.page(), media_type=prometheus.CONTENT_TYPE_LATEST)


def application(settings: ReplicaSettings, name: str) -> Starlette:
    """A replica's application; it begins to follow the champion when it is started."""
    metrics = ReplicaMetrics()
    registry = RegistryClient(
        settings.registry_urls[name],
        settings.model,
        settings.alias,
        timeout_s=settings.registry_timeout_s,
        retries=0,
    )
    folder = settings.serving_file.parent / "replicas" / name
    pins = settings.serving_file.with_name(PINS_FILE)
    follower = ModelFollower(
        registry,
        folder,
        poll_s=settings.poll_s,
        on_error=metrics.registry_errors.inc,
        pin=lambda: read_pins(pins).get(name, ""),
    )
    timeout_s = settings.feature_timeout_ms / 1000
    features = FeatureReader(
        connect(settings.features_host, settings.features_port, timeout_s),
        settings.serving_file,
        settings.snapshots_dir,
        ttl_s=settings.feature_ttl_s,
        timeout_s=timeout_s,
        on_error=metrics.feature_errors.inc,
    )
    replica = ReplicaApp(follower, features, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        follower.start()
        features.read_serving_file()
        # It listens after this: until then connections are refused, and the front door asks another replica. An
        # answer that there is no model yet would be passed on to the user.
        await asyncio.to_thread(follower.polled_once.wait, FIRST_POLL_LIMIT_S)
        watching = asyncio.create_task(features.follow_serving_file())
        yield
        watching.cancel()
        await features.close()
        await asyncio.to_thread(follower.stop)
        registry.close()

    routes = [
        Route("/invocations", replica.invocations, methods=["POST"]),
        Route("/ping", replica.ping),
        Route("/metrics", replica.scrape),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def run(name: str, listener: socket.socket, settings: ReplicaSettings) -> None:
    """Serve on ``listener`` until SIGTERM; with a fresh event loop."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format=f"%(asctime)s {name} %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        application(settings, name),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _json(content: Json, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, media_type="application/json")

"""A stream of records over a real fault proxy, with the embedded target's own validation at its end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from monkeyproof.clock import wait_for
from monkeyproof.targets import port
from monkeyproof.targets.local.models.data import N_FEATURES
from monkeyproof.targets.local.workload.records import parse_batch

ENTITIES = 250
RECORDS_PER_S = 2500
LIMIT = 120


def record(position: int) -> dict:
    """Features whose sign and size tell both entity and column."""
    number = position % ENTITIES
    features = [(column + 1) * (number + 1.25) * (-1) ** column for column in range(N_FEATURES)]
    return {"position": position, "entity": f"e{number:04d}", "features": features, "label": number % 2}


def records(first: int, count: int) -> list[dict]:
    return [record(position) for position in range(first, first + count)]


def answer(message: object) -> bytes:
    body = json.dumps(message).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


def serve_source(connection: socket.socket) -> None:
    """``GET /records?after=P``: a steady rate; those before the newest round are gone."""
    file = connection.makefile("rb")
    while line := file.readline():
        while file.readline() not in (b"\r\n", b""):
            pass
        after = int(parse_qs(urlsplit(line.split()[1].decode()).query)["after"][0])
        newest = int(time.monotonic() * RECORDS_PER_S)
        first = max(after + 1, newest - LIMIT + 1)
        connection.sendall(answer({"records": records(first, max(0, newest + 1 - first))}))


class Pipeline:
    """Pulls, validates and writes, as the embedded one does; it is its own store, status and feedback."""

    def __init__(self, proxy) -> None:
        self.values: dict[str, list[float]] = {}
        self.labelled: list[port.LabelledAnswer] = []
        self._lock = threading.Lock()
        self._status = port.PipelineStatus(False, 0, 0, -1, -1)
        self._proxy = proxy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._proxy.addresses["web"], timeout=10)
        while not self._stop.wait(0.01):
            connection.request("GET", f"/records?after={self._status.last_position}")
            self._take(connection.getresponse().read())
        connection.close()

    def _take(self, body: bytes) -> None:
        now = self._status
        try:
            batch = parse_batch(body, now.last_position)
        except ValueError as error:
            self._status = port.PipelineStatus(
                False,
                now.batches_written,
                0,
                now.last_position,
                now.last_written_position,
                now.records_read,
                now.batches_rejected + 1,
                str(error),
            )
            return
        if batch is None:
            return
        for entity, values, label, position in zip(
            batch.entities, batch.values, batch.labels, batch.positions, strict=True
        ):
            self.values[entity] = values.tolist()
            self.labelled.append(port.LabelledAnswer(position, entity, 0, label))
        last = batch.last_position
        self._status = port.PipelineStatus(
            False,
            now.batches_written + 1,
            0,
            last,
            last,
            now.records_read + len(batch),
            now.batches_rejected,
            now.last_rejection,
        )

    def status(self) -> port.PipelineStatus:
        return self._status

    def read(self, entities):
        return {entity: self.values.get(entity) for entity in entities}

    def latest(self, count: int):
        return self.labelled[-count:][::-1]

    def __enter__(self) -> Pipeline:
        self._thread.start()
        assert wait_for(lambda: self._status.batches_written > 1 and len(self.values) == ENTITIES, within_s=5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

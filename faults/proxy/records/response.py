"""Corrupting the records in one JSON response, and noting down exactly what was changed."""

from __future__ import annotations

import json

import httptools

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.http.changes import with_body
from monkeyproof.faults.proxy.records.batch import Batch
from monkeyproof.faults.proxy.records.faults import record_fault
from monkeyproof.faults.proxy.toxics.registry import Active, CorruptRecords

MAX_BODY_BYTES = 8 * 1024 * 1024


class _Body:
    """Collects the body of one message, chunked or not."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)


def corrupt_response(raw: bytes, active: Active) -> bytes:
    """The response ``raw``, its records corrupted as the toxic says; unchanged where it has no records.

    A changed response has a Content-Length and no Transfer-Encoding, whatever it had before.
    """
    toxic = active.parameters
    if not isinstance(toxic, CorruptRecords):
        raise TypeError(f"{active.kind} corrupts nothing")
    collector = _Body()
    httptools.HttpResponseParser(collector).feed_data(raw)
    body = b"".join(collector.parts)
    try:
        if len(body) > MAX_BODY_BYTES:
            raise ValueError("too large")
        message = json.loads(body)
        batch = Batch.of(message["records"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        active.count("skipped")
        return raw
    active.count("records", len(batch.records))
    try:
        record_fault(toxic.fault, toxic.parameters)(batch, toxic.seed)
    except UsageError as error:  # It does not fit these records: no such column, for example.
        active.trouble = str(error)
        active.count("skipped")
        return raw
    if not batch.journal and not batch.counts:
        return raw
    active.journal.extend(batch.journal)
    active.newest_position = max(active.newest_position, batch.newest_position)
    active.hit(False)
    for name, amount in batch.counts.items():
        active.count(name, amount)
    message["records"] = batch.records
    return with_body(raw, json.dumps(message, separators=(",", ":")).encode())

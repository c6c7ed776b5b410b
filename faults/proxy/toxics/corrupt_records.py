"""The toxic that corrupts the records in JSON responses, and notes down exactly what it changed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.hooks import WHOLE_RESPONSE, WholeResponseToxic
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.http.messages import body_of, with_body
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic
from monkeyproof.types import Json

JOURNAL_CELLS = 500
MAX_BODY_BYTES = 8 * 1024 * 1024


@dataclass
class RecordLog:
    """What one toxic in force did to records."""

    journal: deque[dict[str, Json]] = field(default_factory=lambda: deque(maxlen=JOURNAL_CELLS))
    newest_position: int = 0
    """The newest record that was held back."""
    trouble: str = ""
    """Why it could not do its work on the last response, if it could not."""


@toxic("corrupt_records", hook=WHOLE_RESPONSE, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class CorruptRecords(WholeResponseToxic):
    """Do to the records in JSON responses what a fault of ``monkeyproof.faults.proxy.records.faults`` does.

    What becomes of a record depends on the seed and its position alone.
    """

    fault: str
    parameters: Mapping[str, Json]
    seed: int

    def __post_init__(self) -> None:
        # Imported where it is used: it needs numpy and the whole data engine.
        from monkeyproof.faults.proxy.records.faults import record_fault

        try:
            record_fault(self.fault, self.parameters)
        except UsageError as error:
            raise UsageError(f"{self.kind}: {error}") from None

    def new_state(self) -> RecordLog:
        return RecordLog()

    def report(self, active: ActiveToxic) -> Mapping[str, Json]:
        log: RecordLog = active.state
        return {
            "journal": list(log.journal),
            "newest_position": log.newest_position,
            "trouble": log.trouble,
        }

    def change_of(
        self,
        active: ActiveToxic,
        head: Head,
        own: bool,  # noqa: ARG002
    ) -> Callable[[bytes], bytes] | None:
        if not 200 <= head.status < 300:
            return None
        active.draw(own=False)
        if not head.json:
            active.count("skipped")
            return None
        return lambda raw: self.corrupted(raw, active)

    def corrupted(self, raw: bytes, active: ActiveToxic) -> bytes:
        """The whole response, its records corrupted; unchanged where it has no records."""
        from monkeyproof.faults.proxy.records.batch import RecordBatch
        from monkeyproof.faults.proxy.records.faults import record_fault

        log: RecordLog = active.state
        body = body_of(raw)
        try:
            if len(body) > MAX_BODY_BYTES:
                raise ValueError("too large")
            message = json.loads(body)
            batch = RecordBatch.of(message["records"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            active.count("skipped")
            return raw
        active.count("records", len(batch.records))
        try:
            record_fault(self.fault, self.parameters)(batch, self.seed)
        except UsageError as error:  # It does not fit these records: no such column, for example.
            log.trouble = str(error)
            active.count("skipped")
            return raw
        if not batch.journal and not batch.counts:
            return raw
        log.journal.extend(batch.journal)
        log.newest_position = max(log.newest_position, batch.newest_position)
        active.hit(False)
        for name, amount in batch.counts.items():
            active.count(name, amount)
        message["records"] = batch.records
        return with_body(raw, json.dumps(message, separators=(",", ":")).encode())

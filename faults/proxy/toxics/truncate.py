"""The toxic that cuts HTTP responses off."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.faults.proxy.hooks import RESPONSE_BODY, BodyToxic, ShareOfMessages
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.http.messages import head_bytes
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic

_TAIL_BYTES = 16
"""Held back of a body without a length: its end must not pass, and is known only when it has come."""


@toxic("truncate", hook=RESPONSE_BODY, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class Truncate(ShareOfMessages, BodyToxic):
    """Cut a share of the responses off after ``keep_bytes`` of the body at most, and close the connection.

    At least one byte is always missing; of a chunked body or one that ends with the connection, at least 16.
    """

    keep_bytes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.keep_bytes >= 0, "keep_bytes is at least 0")

    def body_filter(self, active: ActiveToxic, head: Head, own: bool) -> Truncation | None:
        if not self.hits(active.draw(own), own=own):
            return None
        if head.body_bytes or head.chunked or head.until_close:
            return Truncation(active, head, self.keep_bytes, own)
        active.count("skipped")
        return None


class Truncation:
    """One response that is cut off."""

    def __init__(self, active: ActiveToxic, head: Head, keep_bytes: int, own: bool) -> None:
        self.active, self.own = active, own
        self.done = False
        self._counted = not (head.chunked or head.until_close)
        self._left_bytes = min(keep_bytes, head.body_bytes - 1) if self._counted else keep_bytes
        self._tail = b""

    def passing(self, data: bytes, *, is_head: bool, is_end: bool) -> bytes:
        """What goes on of the next piece."""
        cut = head_bytes(data) if is_head else 0
        head, body = data[:cut], self._tail + data[cut:]
        if not self._counted:
            self._tail = body[-_TAIL_BYTES:]
            body = body[:-_TAIL_BYTES]
        kept = body[: self._left_bytes]
        self._left_bytes -= len(kept)
        self.done = is_end or self._left_bytes == 0
        return head + kept

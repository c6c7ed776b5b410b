"""One kept-alive HTTP/1.1 connection of the prober: one request at a time, a bounded answer.

A connection is used again only after a whole, well-formed answer. One that timed out, broke or sent too much
is dropped: it is unknown what would come on it next.

Whatever a service sends costs bounded memory and little time. Bytes alone are not enough of a limit for that: a
mebibyte holds 200,000 headers, or as many interim answers, and each of them is a call.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import time
from typing import Any, ClassVar, Protocol, cast

import httptools

from monkeyproof.probes.prober.answers import Answer

ANSWER_BYTES_MAX = 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
INTERIM_MAX = 8
PIECES_MAX = 20_000
HELD_BYTES_MAX = 16 * 1024 * 1024
"""Of all answers together that are not whole yet."""
USES_MAX = 32
"""Then a connection is replaced: kept-alive ones alone would never see that new ones are refused."""

ENDED = ("closed", "reset")
"""The problems of a connection that the other side ended."""


class ConnectionOwner(Protocol):
    """The object that a connection reports to."""

    def opened(self, connection: Connection) -> None: ...

    def answered(self, connection: Connection, answer: Answer, at_s: float) -> None: ...

    def broken(self, connection: Connection, problem: str, at_s: float) -> None:
        """The connection ended or was ended; ``connection.busy`` says whether an answer was awaited."""


class _TooMuchError(Exception):
    """Raised in a call from the parser, to end its work at once."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 as a client."""

    _held_bytes: ClassVar[int] = 0
    """Received for answers that are not whole yet, by all connections of this process."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._descriptor = -1
        self._held = 0
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self.uses = 0
        self.busy = False
        self.received_bytes = 0
        """Of the answer that is awaited. 0: the server may never have seen the request."""
        self._reset()

    def _reset(self) -> None:
        self._begin_message()
        self._headers_count = self._interim_count = self._pieces_count = 0
        self._too_much = False

    def _begin_message(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._status = 0
        self._complete = False
        self._sent_more = False
        self._keep = False

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent. While it closes, the loop knows that before this object does."""
        open_still = self._transport is not None and not self._transport.is_closing()
        return open_still and not self.busy and self.uses < USES_MAX

    def ask(self, request: bytes) -> None:
        """Send one request. Calls ``answered`` or ``broken`` of the owner, unless the owner drops this before."""
        assert self._transport is not None
        assert not self.busy
        self.uses += 1
        self.busy = True
        self.received_bytes = 0
        self._reset()
        if self._has_unread():
            self._fail("answered before it was asked", time.monotonic())  # It must not pass for an answer to this.
        else:
            self._transport.write(request)

    def _has_unread(self) -> bool:
        """Whether bytes have come that the loop has not read yet."""
        return struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))) != (0,)

    def drop(self) -> None:
        """End the connection at once. The owner receives no more calls."""
        transport, self._transport = self._transport, None
        self._parser = None  # It refers to this object: without the cycle both go at once.
        self._let_go()
        self._begin_message()
        if transport is not None:
            transport.abort()

    def _let_go(self) -> None:
        Connection._held_bytes -= self._held
        self._held = 0

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._parser = httptools.HttpResponseParser(self)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._transport is None:
            return
        if not self.busy:
            self._fail("unexpected bytes", now_s)  # No request is in flight.
            return
        self.received_bytes += len(data)
        self._held += len(data)
        Connection._held_bytes += len(data)
        if self.received_bytes > ANSWER_BYTES_MAX or Connection._held_bytes > HELD_BYTES_MAX:
            self._fail("answer too large", now_s)
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._sent_more = True
            if not self._complete:
                self._fail("answer too large" if self._too_much else "answer is not HTTP", now_s)
                return
        if not self._status and self.received_bytes > HEAD_BYTES_MAX:
            self._fail("answer too large", now_s)
        elif self._complete:
            self._finish(keep=self._keep and not self._sent_more, at_s=now_s)

    def connection_lost(self, error: Exception | None) -> None:
        now_s = time.monotonic()
        if self._transport is None:
            return
        has_length = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if self.busy and self._status and not has_length and error is None:
            self._finish(keep=False, at_s=now_s)  # An answer that ends where the connection does.
            return
        self._fail("reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else "closed", now_s)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._sent_more = self._complete  # A second answer to one request: nothing more is asked there.
        if self._complete:
            raise _TooMuchError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_count = self._counted(self._headers_count, HEADERS_MAX)
        name = name.lower()
        before = self._headers.get(name)
        self._headers[name] = (
            value if before is None else before + b", " + value
        )  # As HTTP defines for repeated headers.

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces_count = self._counted(self._pieces_count, PIECES_MAX)
        self._body += body

    def _counted(self, count: int, most: int) -> int:
        if count >= most:
            self._too_much = True
            raise _TooMuchError
        return count + 1

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:
            self._interim_count = self._counted(self._interim_count, INTERIM_MAX)
            self._begin_message()  # "Continue" and its like: the answer proper follows.
        else:
            self._complete = True
            self._keep = self._parser.should_keep_alive()  # Asked later, it has forgotten.

    def _finish(self, *, keep: bool, at_s: float) -> None:
        answer = Answer(self._status, self._headers, bytes(self._body))
        self.busy = False
        self._let_go()
        self._reset()
        if not keep:
            self.drop()
        self._owner.answered(self, answer, at_s)

    def _fail(self, problem: str, at_s: float) -> None:
        self.drop()
        self._owner.broken(self, problem, at_s)

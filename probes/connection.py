"""One kept-alive HTTP/1.1 connection of the prober: one request at a time, a bounded answer.

A connection is used again only after a whole, well-formed answer. One that timed out, broke or said too much
is dropped: what would come on it next cannot be told.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol, cast

import httptools

from monkeyproof.probes.answers import Answer

ANSWER_BYTES_MAX = 1024 * 1024
USES_MAX = 32
"""Then a connection is replaced: kept-alive ones alone would never see that new ones are refused."""

ENDED = ("closed", "reset")
"""The problems of a connection that the other side ended."""


class Owner(Protocol):
    """Whom a connection reports to."""

    def opened(self, connection: Connection) -> None: ...

    def answered(self, connection: Connection, answer: Answer, at_s: float) -> None: ...

    def broken(self, connection: Connection, problem: str, at_s: float) -> None:
        """The connection ended or was ended; ``connection.busy`` says whether an answer was awaited."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 as a client."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self.uses = 0
        self.busy = False
        self.received_bytes = 0
        """Of the answer that is awaited. 0: the server may never have seen the request."""
        self._reset()

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._status = 0
        self._complete = False
        self._said_more = False
        self._keep = False

    @property
    def reusable(self) -> bool:
        """Closing: its end is known to the loop, but not yet told to this object."""
        open_still = self._transport is not None and not self._transport.is_closing()
        return open_still and not self.busy and self.uses < USES_MAX

    def ask(self, request: bytes) -> None:
        """Send one request. The owner hears of one of ``answered`` and ``broken``, unless it drops this before."""
        assert self._transport is not None
        assert not self.busy
        self.uses += 1
        self.busy = True
        self.received_bytes = 0
        self._reset()
        self._transport.write(request)

    def drop(self) -> None:
        """End the connection at once. The owner hears no more of it."""
        transport, self._transport = self._transport, None
        self._parser = None  # It refers to this object: without the cycle both go at once.
        if transport is not None:
            transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._transport is None:
            return
        if not self.busy:
            self._fail("unexpected bytes", now_s)  # Nobody asked.
            return
        self.received_bytes += len(data)
        if self.received_bytes > ANSWER_BYTES_MAX:
            self._fail("answer too large", now_s)
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._said_more = True
            if not self._complete:
                self._fail("answer is not HTTP", now_s)
                return
        if self._complete:
            self._finish(keep=self._keep and not self._said_more, at_s=now_s)

    def connection_lost(self, error: Exception | None) -> None:
        now_s = time.monotonic()
        if self._transport is None:
            return
        told = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if self.busy and self._status and not told:
            self._finish(keep=False, at_s=now_s)  # An answer that ends where the connection does.
            return
        self._fail("reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else "closed", now_s)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._said_more = self._complete  # A second answer to one request: nothing more is asked there.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:
            self._reset()  # "Continue" and its like: the answer proper follows.
        else:
            self._complete = True
            self._keep = self._parser.should_keep_alive()  # Asked later, it has forgotten.

    def _finish(self, *, keep: bool, at_s: float) -> None:
        answer = Answer(self._status, self._headers, b"".join(self._body))
        self.busy = False
        if not keep:
            self.drop()
        self._owner.answered(self, answer, at_s)

    def _fail(self, problem: str, at_s: float) -> None:
        self.drop()
        self._owner.broken(self, problem, at_s)

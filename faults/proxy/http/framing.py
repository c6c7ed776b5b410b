"""Where HTTP/1 messages begin and end in a stream of bytes, without changing any of them.

httptools parses heads and chunked bodies; bodies of a known length are counted. It does not say at which byte
a message ended, so it is fed up to places where one can end: a head, and a chunked body with its trailers,
always end with an empty line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import httptools

MAX_HEAD_BYTES = 64 * 1024
_CACHED_HEADS = 512
_MAX_CACHED_BYTES = 4096
_EMPTY_LINE = b"\r\n\r\n"
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class NotHttp(Exception):
    """The bytes cannot be framed; ``rest()`` of the framer has all of those that were not handed out."""


class Head(NamedTuple):
    """What the relay needs to know of a request's or response's head, and of the body that follows it."""

    method: bytes = b""
    status: int = 0
    keep_alive: bool = True
    upgrade: bool = False
    """It asks for another protocol (or is a CONNECT)."""
    expects_continue: bool = False
    own: bool = False
    """Sent by the harness to prove a fault (X-Monkeyproof: evidence), not by a user."""
    json: bool = False
    """Its body is plain (not compressed) JSON."""
    body_bytes: int = 0
    chunked: bool = False
    until_close: bool = False
    """A response whose body only ends with the connection."""


class HttpPiece(NamedTuple):
    """Bytes of one message. The first piece of a message holds its whole head."""

    data: bytes
    head: Head | None
    end: bool


class _Fields:
    """What httptools finds in one head."""

    def __init__(self, parser: Any) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.done = False
        self.keep_alive = True
        self.upgrade = False
        self._parser = parser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.done = True
        self.keep_alive = self._parser.should_keep_alive()

    def read(self, data: bytes) -> Any:
        """Parse a head; returns the parser. Raises NotHttp."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as error:
            raise NotHttp(str(error)) from None
        return self._parser

    @property
    def chunked(self) -> bool:
        return self.headers.get(b"transfer-encoding", b"").lower().rstrip().endswith(b"chunked")

    @property
    def length(self) -> int | None:
        found = self.headers.get(b"content-length")
        return int(found) if found is not None and not self.chunked else None


def _request_head(data: bytes, _method: bytes) -> Head | None:
    """A request's head; None if it is still to come (only empty lines so far). Raises NotHttp."""
    fields = _Fields(httptools.HttpRequestParser)
    parser = fields.read(data)
    if not fields.done:
        return None
    return Head(
        method=parser.get_method(),
        keep_alive=fields.keep_alive,
        upgrade=fields.upgrade,
        expects_continue=b"expect" in fields.headers,
        own=fields.headers.get(b"x-monkeyproof") == b"evidence",
        body_bytes=fields.length or 0,
        chunked=fields.chunked,
    )


def _response_head(data: bytes, method: bytes) -> Head | None:
    """The head of a response to a request of this method; None if it is still to come. Raises NotHttp."""
    fields = _Fields(httptools.HttpResponseParser)
    parser = fields.read(data)
    if not fields.done:
        return None
    status = parser.get_status_code()
    content_type = fields.headers.get(b"content-type", b"").lower()
    encoding = fields.headers.get(b"content-encoding", b"identity").lower()
    no_body = method == b"HEAD" or status < 200 or status in (204, 304) or (method == b"CONNECT" and status < 300)
    return Head(
        status=status,
        keep_alive=fields.keep_alive,
        json=b"json" in content_type and encoding == b"identity",
        body_bytes=0 if no_body else fields.length or 0,
        chunked=fields.chunked and not no_body,
        until_close=not no_body and not fields.chunked and fields.length is None,
    )


class _ChunkedEnd:
    """Finds the end of a chunked body, trailers included."""

    def __init__(self) -> None:
        self.reached = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)
        self._last = b""

    def on_message_complete(self) -> None:
        self.reached = True

    def find(self, data: bytes, at: int) -> int:
        """How far ``data`` goes on from ``at`` as a piece of this body, which may be its last. Raises NotHttp."""
        # The empty line may have begun in the piece before.
        found = (self._last + data[at : at + 3]).find(_EMPTY_LINE)
        if found >= 0:
            end = at + found + len(_EMPTY_LINE) - len(self._last)
        else:
            found = data.find(_EMPTY_LINE, at)
            end = found + len(_EMPTY_LINE) if found >= 0 else len(data)
        try:
            self._parser.feed_data(data[at:end])
        except httptools.HttpParserError as error:
            raise NotHttp(str(error)) from None
        self._last = (self._last + data[max(at, end - 3) : end])[-3:]
        return end


class HttpFramer:
    """Cuts one direction of a connection into pieces."""

    def __init__(self, parse: Callable[[bytes, bytes], Head | None]) -> None:
        # The same client sends the same head again and again, and what a head means depends on its bytes alone.
        self._parse_cached = _cached(parse)
        self._parse = parse
        self._data = b""
        self._at = 0
        self._searched = 0
        self._remaining = 0
        self._chunked: _ChunkedEnd | None = None
        self._until_close = False

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def whole(self, data: bytes, request_method: bytes = b"") -> Head | None:
        """The head, if ``data`` is one message, no more and no less, and one may begin here: as it mostly is.
        Then it need not be fed. None if it is anything else."""
        if self._at < len(self._data) or self._remaining or self._chunked is not None or self._until_close:
            return None
        end = data.find(_EMPTY_LINE) + len(_EMPTY_LINE)
        if not len(_EMPTY_LINE) < end <= _MAX_CACHED_BYTES:
            return None
        try:
            head = self._parse_cached(data[:end], request_method)
        except NotHttp:
            return None
        if head is None or end + head.body_bytes != len(data) or head.chunked or head.until_close:
            return None
        return head

    def rest(self) -> bytes:
        """Take back what was fed and not handed out."""
        rest = self._data[self._at :]
        self._data, self._at = b"", 0
        return rest

    def next(self, request_method: bytes = b"") -> HttpPiece | None:
        """The next piece; None until more is fed. ``request_method`` is what a response answers to.

        Raises:
            NotHttp: this is not HTTP/1.
        """
        available = len(self._data) - self._at
        if available == 0:
            return None
        if self._remaining:
            return self._counted(min(available, self._remaining), None)
        if self._chunked is not None:
            data = self._take(self._chunked.find(self._data, self._at))
            if ended := self._chunked.reached:
                self._chunked = None
            return HttpPiece(data, None, ended)
        if self._until_close:
            return HttpPiece(self._take(len(self._data)), None, False)
        return self._next_head(request_method)

    def _next_head(self, request_method: bytes) -> HttpPiece | None:
        data, start = self._data, self._at
        head = None
        while head is None:
            # Empty lines before a head are allowed, and end where a head could: then the search goes on.
            found = data.find(_EMPTY_LINE, start + max(0, self._searched - 3))
            if found < 0:
                self._searched = len(data) - start
                if self._searched > MAX_HEAD_BYTES:
                    raise NotHttp(f"a head of more than {MAX_HEAD_BYTES} bytes")
                return None
            end = found + len(_EMPTY_LINE)
            self._searched = end - start
            parse = self._parse_cached if self._searched <= _MAX_CACHED_BYTES else self._parse
            head = parse(data[start:end], request_method)
        size, self._searched = self._searched, 0
        if head.chunked:
            self._chunked = _ChunkedEnd()
        elif head.until_close:
            self._until_close = True
        elif head.body_bytes:
            self._remaining = size + head.body_bytes
            return self._counted(min(len(data) - start, self._remaining), head)
        return HttpPiece(self._take(start + size), head, not (head.chunked or head.until_close))

    def _counted(self, count: int, head: Head | None) -> HttpPiece:
        self._remaining -= count
        return HttpPiece(self._take(self._at + count), head, self._remaining == 0)

    def _take(self, to: int) -> bytes:
        data = self._data[self._at : to]
        self._at = to
        return data


@lru_cache
def _cached(parse: Callable[[bytes, bytes], Head | None]) -> Callable[[bytes, bytes], Head | None]:
    return lru_cache(_CACHED_HEADS)(parse)


def requests() -> HttpFramer:
    return HttpFramer(_request_head)


def responses() -> HttpFramer:
    return HttpFramer(_response_head)

"""Where RESP messages begin and end in a stream of bytes, without changing any of them; and what reads ask for.

RESP, versions 2 and 3, is the protocol of Redis and Valkey ("Redis serialization protocol
specification", redis.io). A request is an array of bulk strings, or one line of words ("inline"). Requests have no
numbers: replies come in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_LINE_BYTES = 64 * 1024
"""As the servers have it: a longer line is no RESP."""
END = b"\r\n"
_SCALARS = b"+-:_#,("
_BULKS = b"$!="
_AGGREGATES = b"*~>%|"
OWN_NAME = b"monkeyproof-evidence"
"""``CLIENT SETNAME`` of this name marks a connection of the harness's own."""
PUSH = ord(">")
"""A message that answers no request."""
_BULK = ord("$")
_LONGEST_LENGTH = 16
"""Digits."""
_BIGGEST = 1 << 53


class NotResp(Exception):
    """The bytes cannot be framed; ``rest()`` of the framer has all of those that were not handed out."""


class RespPiece(NamedTuple):
    """Bytes of one message."""

    data: bytes
    kind: int
    """The message's first byte."""
    start: bool
    end: bool
    silent: bool
    """A request that no server answers: an empty line, or an empty array."""


class RespFramer:
    """Cuts a stream into messages. A long one comes in pieces: nothing waits here but an unfinished line."""

    def __init__(self, *, requests: bool) -> None:
        self._requests = requests
        self._buffer = b""
        self._at = 0
        self._open = False
        """Within a message."""
        self._kind = 0
        self._frames = 0
        """How many values of the message are still to come, at whatever depth."""
        self._skip = 0
        """How many bytes of a bulk string, its line end included, are still to come."""

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def rest(self) -> bytes:
        """What was fed and not handed out. The framer cannot be used any more."""
        found, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return found

    def next(self) -> RespPiece | None:
        """The next bytes of a message; None if there are no more.

        Raises:
            NotResp: this is no RESP.
        """
        buffer, at, start = self._buffer, self._at, not self._open
        if start:
            if at == len(buffer):
                return None
            if self._requests and buffer[at] != ord("*"):
                return self._inline()
            self._kind, self._frames = buffer[at], 1
        while self._frames:
            if self._skip:
                step = min(self._skip, len(buffer) - at)
                at, self._skip = at + step, self._skip - step
                if self._skip:
                    break
                self._frames -= 1
                continue
            line_end = buffer.find(END, at)
            if line_end < 0:
                if len(buffer) - at > MAX_LINE_BYTES:
                    raise NotResp("a line without an end")
                if start and at == self._at:
                    return None  # Not even its first line.
                break
            kind, line = buffer[at], buffer[at + 1 : line_end]
            first, at = start and at == self._at, line_end + len(END)
            if kind == _BULK and line.isdigit() and len(line) < _LONGEST_LENGTH and not (first and self._requests):
                # Nearly everything is one of these, and nearly all of them are here whole.
                after = at + int(line) + len(END)
                if after <= len(buffer):
                    at = after
                    self._frames -= 1
                    continue
            self._count(kind, line, first=first)
        if at == self._at:
            return None
        data, self._at = buffer[self._at : at], at
        self._open = self._frames > 0
        silent = self._requests and start and not self._open and data.count(END) == 1
        return RespPiece(data, self._kind, start, not self._open, silent)

    def _count(self, kind: int, line: bytes, *, first: bool) -> None:
        """Take one value's first line in. Raises NotResp."""
        if self._requests and not first and kind != ord("$"):
            raise NotResp("a request is made of bulk strings")
        if kind in _SCALARS and not self._requests:
            self._frames -= 1
            return
        if not (line.isdigit() or line == b"-1") or len(line) > _LONGEST_LENGTH:
            raise NotResp(f"{line[:20]!r} is no length")
        count = int(line)
        if kind in _BULKS:
            if count < 0:
                if self._requests:
                    raise NotResp("a request without a word")
                self._frames -= 1
            else:
                self._skip = count + len(END)
        elif kind in _AGGREGATES:
            several = 2 if kind in b"%|" else 1
            # An attribute describes the value that follows it.
            self._frames += several * max(count, 0) - (kind != ord("|"))
            if self._frames > _BIGGEST:
                raise NotResp("more values than there can be")
        else:
            raise NotResp(f"nothing begins with {chr(kind)!r}")

    def _inline(self) -> RespPiece | None:
        first = self._buffer[self._at : self._at + 1]
        if not (first.isalpha() or first in b"\r\n \"'"):
            raise NotResp("neither an array nor words")
        line_end = self._buffer.find(b"\n", self._at)
        if line_end < 0:
            if len(self._buffer) - self._at > MAX_LINE_BYTES:
                raise NotResp("a line without an end")
            return None
        data, self._at = self._buffer[self._at : line_end + 1], line_end + 1
        return RespPiece(data, data[0], start=True, end=True, silent=not data.strip())


def words(request: bytes) -> list[bytes]:
    """The words of one whole request that a framer found; its name comes first, as it was written."""
    if not request.startswith(b"*"):
        return request.split()
    at = request.index(END) + 2
    found = []
    while at < len(request):
        line_end = request.index(END, at)
        begin = line_end + 2
        at = begin + int(request[at + 1 : line_end]) + 2
        found.append(request[begin : at - 2])
    return found


def name_of(request: bytes) -> bytes:
    """The name of a request in upper case; of an array it is the first bulk string."""
    if not request.startswith(b"*"):
        return request.split(maxsplit=1)[0].upper() if request.strip() else b""
    parts = request.split(END, 3)
    return parts[2].upper() if len(parts) > 2 else b""


def elements(reply: bytes) -> list[bytes] | None:
    """The elements of one whole reply that is an array or a map, as they came; None of anything else."""
    if reply[:1] not in (b"*", b"%", b"~") or reply.startswith(b"*-1"):
        return None
    framer = RespFramer(requests=False)
    framer.feed(reply[reply.index(END) + 2 :])
    found = []
    while (piece := framer.next()) is not None:
        found.append(piece.data)
    return found


def bulk(payload: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(payload), payload)


def payload_of(element: bytes) -> bytes | None:
    """What a bulk string holds; None if the element is none (a nil, a number, an error)."""
    if not element.startswith(b"$") or element.startswith(b"$-"):
        return None
    return element[element.index(END) + 2 : -2]


def is_nil(element: bytes) -> bool:
    return element in (b"$-1\r\n", b"_\r\n", b"*-1\r\n")


def command(*arguments: bytes) -> bytes:
    """A request, as bytes."""
    return b"*%d\r\n%b" % (len(arguments), b"".join(map(bulk, arguments)))


class Read(NamedTuple):
    """The read of one value, or of one entity's named values, out of a request that may ask for several."""

    name: bytes
    """GET, HGET or HGETALL."""
    key: bytes
    field: bytes = b""

    @property
    def asked(self) -> tuple[bytes, ...]:
        """As a request of its own."""
        return (self.name, self.key, self.field) if self.name == b"HGET" else (self.name, self.key)


READS = frozenset({b"GET", b"GETEX", b"MGET", b"HGET", b"HMGET", b"HGETALL"})


def reads_of(request: Sequence[bytes]) -> list[Read]:
    """What a request reads, one for each value of its reply; nothing if it is none of ``READS``."""
    name, arguments = (request[0].upper(), request[1:]) if request else (b"", request)
    if name in (b"GET", b"GETEX", b"MGET"):
        return [Read(b"GET", key) for key in (arguments if name == b"MGET" else arguments[:1])]
    if name in (b"HGET", b"HMGET") and arguments:
        return [Read(b"HGET", arguments[0], field) for field in arguments[1:]]
    return [Read(name, arguments[0])] if name == b"HGETALL" and arguments else []

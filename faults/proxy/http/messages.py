"""Reading and changing whole HTTP/1 messages, and first pieces of messages, as bytes."""

from __future__ import annotations

import httptools

_EMPTY_LINE = b"\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding", b"trailer")


def head_bytes(data: bytes) -> int:
    """Where the head ends in the first piece of a message, which holds it whole."""
    begin = len(data) - len(data.lstrip(b"\r\n"))
    return data.index(_EMPTY_LINE, begin) + len(_EMPTY_LINE)


def without_headers(data: bytes, names: frozenset[str]) -> bytes:
    """The first piece of a message without the headers of these names (in lower case); the same if it has none."""
    end = head_bytes(data)
    first, *lines = data[: end - len(_EMPTY_LINE)].lstrip(b"\r\n").split(b"\r\n")
    kept, dropping = [first], False
    for line in lines:
        if not line.startswith((b" ", b"\t")):  # Otherwise it goes on with the header before.
            dropping = line.split(b":", 1)[0].strip().lower().decode("latin-1") in names
        if not dropping:
            kept.append(line)
    if len(kept) == 1 + len(lines):
        return data
    return b"\r\n".join(kept) + _EMPTY_LINE + data[end:]


def body_of(raw: bytes) -> bytes:
    """The body of a whole response, chunked or not."""
    body = _Body()
    httptools.HttpResponseParser(body).feed_data(raw)
    return b"".join(body.parts)


def with_body(raw: bytes, body: bytes) -> bytes:
    """A whole message with another body, framed by its length, whatever framed it before."""
    head = raw[: raw.index(_EMPTY_LINE)]
    first, *headers = head.split(b"\r\n")
    kept = [line for line in headers if line.split(b":", 1)[0].strip().lower() not in _FRAMING]
    return b"\r\n".join([first, *kept, b"Content-Length: %d" % len(body), b"", body])


class _Body:
    """Collects the body of one message."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

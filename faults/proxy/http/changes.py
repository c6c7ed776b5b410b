"""What toxics do to the messages of an HTTP link: headers that go missing, bodies cut off or damaged."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator
from functools import partial

import httptools

from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.request_random import AMOUNT, OWN, PLACE, uniform
from monkeyproof.faults.proxy.toxics.messages import Garble
from monkeyproof.faults.proxy.toxics.registry import Active
from monkeyproof.types import Json

_EMPTY_LINE = b"\r\n\r\n"
_TAIL_BYTES = 16
"""Of a body without a length, what is held back: its end must not pass, and is known only when it is there."""
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


class Truncation:
    """One answer that is cut off."""

    def __init__(self, active: Active, head: Head, keep_bytes: int, own: bool) -> None:
        self.active, self.own = active, own
        self.done = False
        """All that passes has passed: time to close."""
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


def garbled(raw: bytes, *, active: Active, n: int, own: bool) -> bytes:
    """A whole JSON answer with a damaged body, well framed; unchanged where its body is not JSON.

    The changed answer has a Content-Length and no Transfer-Encoding, whatever it had before.
    """
    toxic = active.parameters
    if not isinstance(toxic, Garble):
        raise TypeError(f"{active.kind} garbles nothing")
    parts: list[bytes] = []
    httptools.HttpResponseParser(_Body(parts)).feed_data(raw)
    body = b"".join(parts)
    u = uniform(toxic.seed, (OWN if own else 0) + (AMOUNT if toxic.mode == "changed" else PLACE), n)
    try:
        message = json.loads(body)
        new = _changed(message, u) if toxic.mode == "changed" else _broken(body, u)
    except (ValueError, RecursionError):
        new = None
    if new is None:
        active.count("skipped")
        return raw
    active.hit(own)
    return with_body(raw, new)


def with_body(raw: bytes, body: bytes) -> bytes:
    """A whole message with another body, framed by its length."""
    head = raw[: raw.index(_EMPTY_LINE)]
    first, *headers = head.split(b"\r\n")
    kept = [line for line in headers if line.split(b":", 1)[0].strip().lower() not in _FRAMING]
    return b"\r\n".join([first, *kept, b"Content-Length: %d" % len(body), b"", body])


class _Body:
    """Collects the body of one message, chunked or not."""

    def __init__(self, parts: list[bytes]) -> None:
        self.on_body = parts.append


def _broken(body: bytes, u: float) -> bytes | None:
    """The body cut short at a place in it, and closed with a byte that JSON has no use for."""
    cut = body.rstrip()
    return cut[: int(u * len(cut))] + b"\x00" if cut else None


def _changed(message: Json, u: float) -> bytes | None:
    """The message with one of its numbers changed, or without numbers one truth value; None without both."""
    places = list(_places(message, (int, float))) or list(_places(message, (bool,)))
    if not places:
        return None
    value, put = places[int(u * len(places))]
    put(not value if isinstance(value, bool) else value + 1 if value + 1 != value else -value)
    return json.dumps(message, separators=(",", ":")).encode()


def _places(inside: Json, types: tuple[type, ...]) -> Iterator[tuple[Json, Callable[[Json], None]]]:
    """Every value of these types in a message, in its order, with how to put another in its place."""
    if not isinstance(inside, dict | list):
        return
    for key, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
        if type(value) in types and value == value:  # Not NaN: it differs from itself.
            yield value, partial(operator.setitem, inside, key)
        else:
            yield from _places(value, types)

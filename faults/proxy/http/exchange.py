"""A request with its response, as the relay of an HTTP link follows it; and the responses of the proxy's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus

from monkeyproof.faults.proxy.hooks import ProxyResponse
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.toxic import ActiveToxic


@dataclass(slots=True)
class Exchange:
    """A request whose response is not complete."""

    head: Head
    refused: tuple[ActiveToxic, ProxyResponse] | None = None
    """The toxic that answers it in the server's place, and with what."""
    response: bytes | None = None
    """That response, once the request has been read to its end."""
    responding: bool = False
    """The beginning of the server's response has come."""


def closes(exchange: Exchange) -> bool:
    """After a refused body (Expect: 100-continue) the proxy cannot know whether the client will send it."""
    return exchange.head.expects_continue or not exchange.head.keep_alive


def response_of(exchange: Exchange, active: ActiveToxic, refusal: ProxyResponse) -> bytes:
    """The response of the proxy's own to a refused request."""
    status = refusal.status
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Error"
    body = f"{status} {reason}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Connection: {'close' if closes(exchange) else 'keep-alive'}",
    ]
    if refusal.retry_after_s is not None:
        lines.append(f"Retry-After: {math.ceil(refusal.retry_after_s)}")
    if exchange.head.own:
        lines.append(f"X-Monkeyproof: {active.id}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if exchange.head.method == b"HEAD" else head + body

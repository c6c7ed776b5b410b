"""A request with its answer, as the relay of an HTTP link keeps count of them; and the answers of its own."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.toxics.messages import Refusing, retry_after
from monkeyproof.faults.proxy.toxics.registry import Active


@dataclass(slots=True)
class Exchange:
    """A request whose response is not complete."""

    head: Head
    error: Active | None = None
    """The toxic that answers it in the server's place."""
    answer: bytes | None = None
    """That answer, once the request has been read to its end."""
    answering: bool = False
    """The beginning of the server's answer has come."""


def closes(exchange: Exchange) -> bool:
    """After a refused body (Expect: 100-continue) nobody knows whether it will be sent."""
    return exchange.head.expects_continue or not exchange.head.keep_alive


def answer_of(exchange: Exchange) -> bytes:
    active = exchange.error
    if active is None or not isinstance(active.parameters, Refusing):
        raise TypeError("only a toxic that refuses requests answers by itself")
    status, retry_after_s = active.parameters.status, retry_after(active.parameters)
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
    if retry_after_s is not None:
        lines.append(f"Retry-After: {retry_after_s}")
    if exchange.head.own:
        lines.append(f"X-Monkeyproof: {active.id}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if exchange.head.method == b"HEAD" else head + body

"""Relaying an HTTP/1 link: requests are told apart, so that a toxic acts once a request; bytes stay as they are.

Responses are matched to requests in order (pipelining included), since answers that the proxy gives itself must
take their turn. What is not HTTP/1, or has become another protocol, is relayed as it comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

from monkeyproof.faults import framing
from monkeyproof.faults.framing import Head, NotHttp, Piece
from monkeyproof.faults.link import Link
from monkeyproof.faults.records import MAX_BODY_BYTES, corrupt_response
from monkeyproof.faults.relay import Relay
from monkeyproof.faults.toxics import Active, HttpError

MAX_PIPELINED = 64


@dataclass(slots=True)
class Exchange:
    """A request whose response is not complete."""

    head: Head
    error: Active | None = None
    """The toxic that answers it in the server's place."""
    answer: bytes | None = None
    """That answer, once the request has been read to its end."""


class HeldResponse:
    """A response that is collected whole, to be changed. Let go of unchanged if the toxic goes."""

    def __init__(self, relay: HttpRelay, actives: list[Active], head: Head) -> None:
        self.actives, self.head = actives, head
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self._relay = relay
        for active in actives:
            active.held.add(self)

    def add(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size_bytes += len(data)

    def release(self) -> None:
        self._relay.let_go(self)


class HttpRelay(Relay):
    """One client connection of an HTTP link. The server is connected to when the first request needs it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._requests: framing.Framer | None = framing.requests()
        self._responses: framing.Framer | None = framing.responses()
        self._exchanges: deque[Exchange] = deque()
        self._current: Exchange | None = None
        """The request that is being read."""
        self._switching = False
        """A request asked for another protocol; what the client's next bytes are, the answer will tell."""
        self._held: HeldResponse | None = None

    # The short way, for messages that come whole where no toxic looks into them: nearly all.
    def _pass_request(self, data: bytes) -> bool:
        """Relay a request that came whole. Returns whether it was one; else nothing has happened."""
        if self._requests is None or self._switching:
            return False
        head = self._requests.whole(data)
        if head is None or head.upgrade or head.expects_continue:
            return False
        exchange = Exchange(head, self._failing(head.own))
        self._exchanges.append(exchange)
        if len(self._exchanges) >= MAX_PIPELINED:
            self.client.hold("many answers are due")
        if exchange.error is None:
            self.forward(data, self.link.gates(self, own=head.own))
        else:
            exchange.answer = _answer(exchange)
            self._give_answers()
        return True

    def _pass_response(self, data: bytes) -> bool:
        """The same for a response."""
        exchanges = self._exchanges
        if self._responses is None or self._switching or self._held is not None or not exchanges:
            return False
        first = exchanges[0]
        if first.error is not None:
            return False
        head = self._responses.whole(data, first.head.method)
        if head is None or head.status < 200:
            return False
        self.client.write(data)
        exchanges.popleft()
        if exchanges:
            self._give_answers()
        return True

    # Requests.
    def from_client(self, data: bytes) -> None:
        if self.link.messages_stay_whole and self._pass_request(data):
            return
        if self._requests is None:
            self.forward(data)
            return
        self._requests.feed(data)
        self._read_requests(self._requests)

    def _read_requests(self, framer: framing.Framer) -> None:
        while not self._switching and not self.closed:
            try:
                piece = framer.next()
            except NotHttp:
                self._requests = None  # The server shall say what it thinks of it.
                self.forward(framer.rest())
                return
            if piece is None:
                return
            self._relay_request(piece)

    def _relay_request(self, piece: Piece) -> None:
        if piece.head is not None:
            head = piece.head
            self._current = Exchange(head, self._failing(head.own))
            self._exchanges.append(self._current)
            if len(self._exchanges) >= MAX_PIPELINED:
                self.client.hold("many answers are due")
            if self._current.error is None:
                self.forward(piece.data, self.link.gates(self, own=head.own))
        elif self._current is not None and self._current.error is None:
            self.forward(piece.data)
        current = self._current
        if current is None or current.error is None:
            if piece.end and current is not None and current.head.upgrade:
                self._switching = True
                self.client.hold("the protocol may change")
        elif piece.end or current.head.expects_continue:
            current.answer = _answer(current)
            self._give_answers()

    def _failing(self, own: bool) -> Active | None:
        """The toxic that answers the request that just arrived. Every toxic decides on every request."""
        found = None
        for active, error in self.link.errors:
            if error.hits(active.draw(own), own=own):
                found = found or active
        return found

    def _give_answers(self) -> None:
        """Write the proxy's own answers whose turn it is."""
        while self._exchanges and not self.closed:
            first = self._exchanges[0]
            if first.error is None or first.answer is None:
                break
            self._exchanges.popleft()
            first.error.hit(first.head.own)
            self.client.write(first.answer)
            if _closes(first):
                self._finish()
        if len(self._exchanges) < MAX_PIPELINED:
            self.client.go("many answers are due")

    def client_ending(self) -> None:
        if self._requests is not None and (rest := self._requests.rest()):
            self.forward(rest)  # The beginning of a request: it is the server's to complain about.
        self._requests = None

    # Responses.
    def from_server(self, data: bytes) -> None:
        if self.link.messages_stay_whole and self._pass_response(data):
            return
        if self._responses is None:
            self.client.write(data)
            return
        self._responses.feed(data)
        while self._responses is not None and not self.closed:
            exchange = self._exchanges[0] if self._exchanges and self._exchanges[0].error is None else None
            try:
                piece = self._responses.next(exchange.head.method if exchange else b"")
            except NotHttp:
                self._tunnel()
                return
            if piece is None:
                return
            self._relay_response(piece, exchange)

    def _relay_response(self, piece: Piece, exchange: Exchange | None) -> None:
        head = piece.head
        if head is not None and self.link.corruptions:
            self._hold_if_corrupting(head, self.link.corruptions)
        if self._held is None:
            self.client.write(piece.data)
        else:
            self._held.add(piece.data)
            if self._held.size_bytes > MAX_BODY_BYTES + framing.MAX_HEAD_BYTES:
                for active in self._held.actives:
                    active.count("skipped")
                self.let_go(self._held)
            elif piece.end:
                self._release_corrupted(self._held)
        if head is not None:
            connected = exchange is not None and exchange.head.method == b"CONNECT" and 200 <= head.status < 300
            if head.status == 101 or connected:
                self._tunnel()
                return
            if 100 <= head.status < 200:
                return  # An interim response: the real one follows.
        if piece.end and exchange is not None:
            self._exchanges.popleft()
            self._give_answers()
        if self._switching and head is not None and exchange is not None and exchange.head.upgrade:
            self._switching = False
            self.client.go("the protocol may change")
            if self._requests is not None:
                self._read_requests(self._requests)

    def _tunnel(self) -> None:
        """From here on bytes are only passed on."""
        requests, responses = self._requests, self._responses
        self._requests = self._responses = None
        self._switching = False
        if self._held is not None:
            self.let_go(self._held)
        if responses is not None and (rest := responses.rest()):
            self.client.write(rest)
        if requests is not None and (rest := requests.rest()):
            self.forward(rest)
        self.client.go("the protocol may change")
        self.client.go("many answers are due")

    def server_ending(self) -> None:
        if self._held is not None:
            if self._held.head.until_close:
                self._release_corrupted(self._held)
            else:
                self.let_go(self._held)  # Cut short: not ours to mend.
        if self._responses is not None and (rest := self._responses.rest()):
            self.client.write(rest)

    # Corrupting records.
    def _hold_if_corrupting(self, head: Head, actives: list[Active]) -> None:
        if not 200 <= head.status < 300:
            return
        for active in actives:
            active.draw(own=False)
            if not head.json:
                active.count("skipped")
        if head.json:
            self._held = HeldResponse(self, actives, head)

    def let_go(self, held: HeldResponse) -> None:
        """Pass on unchanged what was collected so far; the rest of the response follows as it comes."""
        self._drop_hold()
        for data in held.pieces:
            self.client.write(data)

    def _release_corrupted(self, held: HeldResponse) -> None:
        self._drop_hold()
        raw = b"".join(held.pieces)
        for active in held.actives:
            raw = corrupt_response(raw, active)
        self.client.write(raw)

    def _drop_hold(self) -> None:
        if self._held is not None:
            for active in self._held.actives:
                active.held.discard(self._held)
            self._held = None

    def _forget(self) -> None:
        super()._forget()
        self._drop_hold()


def _closes(exchange: Exchange) -> bool:
    """After a refused body (Expect: 100-continue) nobody knows whether it will be sent."""
    return exchange.head.expects_continue or not exchange.head.keep_alive


def _answer(exchange: Exchange) -> bytes:
    active = exchange.error
    if active is None or not isinstance(active.parameters, HttpError):
        raise TypeError("only an http_error toxic answers by itself")
    status, retry_after_s = active.parameters.status, active.parameters.retry_after_s
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Error"
    body = f"{status} {reason}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Connection: {'close' if _closes(exchange) else 'keep-alive'}",
    ]
    if retry_after_s is not None:
        lines.append(f"Retry-After: {retry_after_s:.0f}")
    if exchange.head.own:
        lines.append(f"X-Monkeyproof: {active.id}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if exchange.head.method == b"HEAD" else head + body

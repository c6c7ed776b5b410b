"""Relaying an HTTP/1 link: requests are told apart, so that a toxic acts once a request; bytes stay as they are.

Responses are matched to requests in order (pipelining included), since answers that the proxy gives itself must
take their turn. What is not HTTP/1, or has become another protocol, is relayed as it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from monkeyproof.faults.proxy.http import framing
from monkeyproof.faults.proxy.http.changes import Truncation, garbled, without_headers
from monkeyproof.faults.proxy.http.exchange import Exchange, answer_of, closes
from monkeyproof.faults.proxy.http.framing import Head, NotHttp, Piece
from monkeyproof.faults.proxy.link import Link
from monkeyproof.faults.proxy.records.response import MAX_BODY_BYTES, corrupt_response
from monkeyproof.faults.proxy.relay import Relay
from monkeyproof.faults.proxy.toxics.messages import Garble
from monkeyproof.faults.proxy.toxics.registry import Active, Collected

MAX_PIPELINED = 64


class HeldResponse(Collected):
    """A response that toxics change."""

    def __init__(self, relay: HttpRelay, changes: Mapping[Active, Callable[[bytes], bytes]], head: Head) -> None:
        self.changes, self.head = changes, head
        super().__init__(changes)
        self._relay = relay

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
        self._truncation: Truncation | None = None

    # The short way, for messages that come whole where no toxic looks into them: nearly all.
    def _pass_request(self, data: bytes) -> bool:
        """Relay a request that came whole. Returns whether it was one; else nothing has happened."""
        if self._requests is None or self._switching:
            return False
        head = self._requests.whole(data)
        if head is None or head.upgrade or head.expects_continue:
            return False
        link, exchanges = self.link, self._exchanges
        exchange = Exchange(head, self._failing(head.own) if link.errors else None)
        exchanges.append(exchange)
        if len(exchanges) >= MAX_PIPELINED:
            self.client.hold("many answers are due")
        if exchange.error is None:
            self.forward(data, link.gates(self, own=head.own) if link.holds_requests else ())
        else:
            exchange.answer = answer_of(exchange)
            self._give_answers()
        return True

    def _pass_response(self, data: bytes) -> bool:
        """The same for a response."""
        exchanges = self._exchanges
        if self._responses is None or self._switching or not exchanges:
            return False
        if self._held is not None or self._truncation is not None:
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
        while not self._switching and not self.ending:
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
                data = self._with_losses(piece.data, "request", head.own)
                self.forward(data, self.link.gates(self, own=head.own))
        elif self._current is not None and self._current.error is None:
            self.forward(piece.data)
        current = self._current
        if current is None or current.error is None:
            if piece.end and current is not None and current.head.upgrade:
                self._switching = True
                self.client.hold("the protocol may change")
        elif piece.end or current.head.expects_continue:
            current.answer = answer_of(current)
            self._give_answers()

    def _failing(self, own: bool) -> Active | None:
        """The toxic that answers the request that just arrived. Every toxic decides on every request."""
        found = None
        for active, refusing in self.link.errors:
            if refusing.refuses(active, own):
                found = found or active
        return found

    def _give_answers(self) -> None:
        """Write the proxy's own answers whose turn it is."""
        while self._exchanges and not self.ending:
            first = self._exchanges[0]
            if first.error is None or first.answer is None:
                break
            self._exchanges.popleft()
            first.error.hit(first.head.own)
            self.client.write(first.answer)
            if closes(first):
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
        while self._responses is not None and not self.ending:
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
        head, data = piece.head, piece.data
        if head is not None:
            data = self._begin_response(head, data, exchange)
        if self._truncation is not None:
            self._cut_off(self._truncation, data, piece)
            if self.ending:
                return
        elif self._held is None:
            self.client.write(data)
        else:
            self._held.add(data)
            if self._held.size_bytes > MAX_BODY_BYTES + framing.MAX_HEAD_BYTES:
                for active in self._held.changes:
                    active.count("skipped")
                self.let_go(self._held)
            elif piece.end:
                self._release_changed(self._held)
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
        if self._truncation is not None:
            self._cut_off(self._truncation, b"", None)
            return
        if self._held is not None:
            if self._held.head.until_close:
                self._release_changed(self._held)
            else:
                self.let_go(self._held)  # Cut short: not ours to mend.
        if self._responses is not None and (rest := self._responses.rest()):
            self.client.write(rest)

    # Changing responses.
    def _begin_response(self, head: Head, data: bytes, exchange: Exchange | None) -> bytes:
        """Decide what happens to a response whose head has come; returns its first piece as it goes on."""
        own = exchange is not None and exchange.head.own
        if self.link.holds_answers and (exchange is None or not exchange.answering):
            self.flows.of("response").hold(self.link.answer_gates(self, own=own))
        if exchange is not None:
            exchange.answering = True
        if head.status < 200:
            return data  # The real one follows, or another protocol.
        if self.link.corruptions:
            self._hold_if_changing(head, own)
        for active, truncate in self.link.truncations:
            if truncate.hits(active.draw(own), own=own) and self._truncation is None:
                if head.body_bytes or head.chunked or head.until_close:
                    self._truncation = Truncation(active, head, truncate.keep_bytes, own)
                else:
                    active.count("skipped")
        if self._truncation is not None:
            self._drop_hold()  # What is cut off is not damaged as well.
        return self._with_losses(data, "response", own)

    def _with_losses(self, data: bytes, direction: str, own: bool) -> bytes:
        """The first piece of a message, without the headers that toxics lose."""
        for active, loss in self.link.header_losses:
            if loss.direction == direction and loss.hits(active.draw(own), own=own):
                less = without_headers(data, loss.lowered)
                if less is data:
                    active.count("skipped")
                else:
                    active.hit(own)
                data = less
        return data

    def _cut_off(self, truncation: Truncation, data: bytes, piece: Piece | None) -> None:
        if piece is not None:
            is_head = piece.head is not None
            self.client.write(truncation.passing(data, is_head=is_head, is_end=piece.end))
        if piece is None or truncation.done:
            truncation.active.hit(truncation.own)
            self._truncation = None
            self._finish()

    def _hold_if_changing(self, head: Head, own: bool) -> None:
        changes: dict[Active, Callable[[bytes], bytes]] = {}
        for active in self.link.corruptions:
            if isinstance(active.parameters, Garble):
                n = active.draw(own)
                if not active.parameters.hits(n, own=own):
                    continue
                change: Callable[[bytes], bytes] = partial(garbled, active=active, n=n, own=own)
            else:
                if not 200 <= head.status < 300:
                    continue
                active.draw(own=False)
                change = partial(corrupt_response, active=active)
            if head.json:
                changes[active] = change
            else:
                active.count("skipped")
        if changes:
            self._held = HeldResponse(self, changes, head)

    def let_go(self, held: HeldResponse) -> None:
        """Pass on unchanged what was collected so far; the rest of the response follows as it comes."""
        self._drop_hold()
        for data in held.pieces:
            self.client.write(data)

    def _release_changed(self, held: HeldResponse) -> None:
        self._drop_hold()
        raw = b"".join(held.pieces)
        for change in held.changes.values():
            raw = change(raw)
        self.client.write(raw)

    def _drop_hold(self) -> None:
        if self._held is not None:
            for active in self._held.changes:
                active.held.discard(self._held)
            self._held = None

    def _forget(self) -> None:
        super()._forget()
        self._drop_hold()

"""Relays an HTTP/1 link request by request, so that a toxic acts once a request; bytes stay as they are.

Responses are matched to requests in order (pipelining included), since responses of the proxy's own must
take their turn. What is not HTTP/1, or has become another protocol, is relayed as it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from monkeyproof.faults.proxy.collected import CollectedMessage
from monkeyproof.faults.proxy.hooks import (
    REQUEST_HEAD,
    RESPONSE_BODY,
    RESPONSE_DELAY,
    RESPONSE_HEAD,
    WHOLE_RESPONSE,
    BodyFilter,
    HeadToxic,
    ProxyResponse,
)
from monkeyproof.faults.proxy.http import framing
from monkeyproof.faults.proxy.http.exchange import Exchange, closes, response_of
from monkeyproof.faults.proxy.http.framing import Head, HttpFramer, HttpPiece, NotHttp
from monkeyproof.faults.proxy.relay import Relay, RelayLink
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A longer response is passed on as it is, whatever toxic wants to change it."""
MAX_PIPELINED = 64
_MANY_DUE = "many responses are due"
_MAY_SWITCH = "the protocol may change"


class HeldResponse(CollectedMessage):
    """A response that toxics change."""

    def __init__(
        self, relay: HttpRelay, changes: Mapping[ActiveToxic, Callable[[bytes], bytes]], head: Head
    ) -> None:
        self.changes, self.head = changes, head
        super().__init__(changes)
        self._relay = relay

    def release(self) -> None:
        self._relay.let_go(self)


class HttpRelay(Relay):
    """One client connection of an HTTP link. The server is connected to when the first request needs it."""

    def __init__(self, link: RelayLink) -> None:
        super().__init__(link)
        self._requests: HttpFramer | None = framing.requests()
        self._responses: HttpFramer | None = framing.responses()
        self._exchanges: deque[Exchange] = deque()
        self._current: Exchange | None = None
        """The request that is being read."""
        self._switching = False
        """A request asked for another protocol; the response decides what the client's next bytes are."""
        self._held: HeldResponse | None = None
        self._body_filter: BodyFilter | None = None

    # The fast path, for messages that come whole where no toxic acts on messages: nearly all.
    def _pass_request(self, data: bytes) -> bool:
        """Relay a request that came whole. Returns whether it was one; else nothing has happened."""
        if self._requests is None or self._switching:
            return False
        head = self._requests.whole(data)
        if head is None or head.upgrade or head.expects_continue:
            return False
        link, exchanges = self.link, self._exchanges
        exchange = Exchange(head, self._refusal(head.own) if link.refusals else None)
        exchanges.append(exchange)
        if len(exchanges) >= MAX_PIPELINED:
            self.client.hold(_MANY_DUE)
        if exchange.refused is None:
            self.forward(data, self.gates(own=head.own) if link.request_delays else ())
        else:
            exchange.response = response_of(exchange, *exchange.refused)
            self._give_responses()
        return True

    def _pass_response(self, data: bytes) -> bool:
        """The same for a response."""
        exchanges = self._exchanges
        if self._responses is None or self._switching or not exchanges:
            return False
        if self._held is not None or self._body_filter is not None:
            return False
        first = exchanges[0]
        if first.refused is not None:
            return False
        head = self._responses.whole(data, first.head.method)
        if head is None or head.status < 200:
            return False
        self.client.write(data)
        exchanges.popleft()
        if exchanges:
            self._give_responses()
        return True

    # Requests.
    def from_client(self, data: bytes) -> None:
        if not self.link.splits_messages and self._pass_request(data):
            return
        if self._requests is None:
            self.forward(data)
            return
        self._requests.feed(data)
        self._read_requests(self._requests)

    def _read_requests(self, framer: HttpFramer) -> None:
        while not self._switching and not self.ending:
            try:
                piece = framer.next()
            except NotHttp:
                self._requests = None  # The server answers what is not HTTP.
                self.forward(framer.rest())
                return
            if piece is None:
                return
            self._relay_request(piece)

    def _relay_request(self, piece: HttpPiece) -> None:
        if piece.head is not None:
            head = piece.head
            self._current = Exchange(head, self._refusal(head.own))
            self._exchanges.append(self._current)
            if len(self._exchanges) >= MAX_PIPELINED:
                self.client.hold(_MANY_DUE)
            if self._current.refused is None:
                data = self._changed_head(REQUEST_HEAD, piece.data, head, head.own)
                self.forward(data, self.gates(own=head.own))
        elif self._current is not None and self._current.refused is None:
            self.forward(piece.data)
        current = self._current
        if current is None or current.refused is None:
            if piece.end and current is not None and current.head.upgrade:
                self._switching = True
                self.client.hold(_MAY_SWITCH)
        elif piece.end or current.head.expects_continue:
            current.response = response_of(current, *current.refused)
            self._give_responses()

    def _refusal(self, own: bool) -> tuple[ActiveToxic, ProxyResponse] | None:
        """The toxic that answers the request that just arrived, and with what."""
        found = None
        for active, toxic in self.link.refusals:
            refusal = toxic.refusal(active, own)
            if refusal is not None and found is None:
                found = active, refusal
        return found

    def _give_responses(self) -> None:
        """Write the proxy's own responses whose turn it is."""
        while self._exchanges and not self.ending:
            first = self._exchanges[0]
            if first.refused is None or first.response is None:
                break
            self._exchanges.popleft()
            first.refused[0].hit(first.head.own)
            self.client.write(first.response)
            if closes(first):
                self._finish()
        if len(self._exchanges) < MAX_PIPELINED:
            self.client.go(_MANY_DUE)

    def client_ending(self) -> None:
        if self._requests is not None and (rest := self._requests.rest()):
            self.forward(rest)  # The beginning of a request: the server answers what is incomplete.
        self._requests = None

    # Responses.
    def from_server(self, data: bytes) -> None:
        if not self.link.splits_messages and self._pass_response(data):
            return
        if self._responses is None:
            self.client.write(data)
            return
        self._responses.feed(data)
        while self._responses is not None and not self.ending:
            exchange = self._exchanges[0] if self._exchanges and self._exchanges[0].refused is None else None
            try:
                piece = self._responses.next(exchange.head.method if exchange else b"")
            except NotHttp:
                self._tunnel()
                return
            if piece is None:
                return
            self._relay_response(piece, exchange)

    def _relay_response(self, piece: HttpPiece, exchange: Exchange | None) -> None:
        head, data = piece.head, piece.data
        if head is not None:
            data = self._begin_response(head, data, exchange)
        if self._body_filter is not None:
            self._filter_body(self._body_filter, data, piece)
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
            self._give_responses()
        if self._switching and head is not None and exchange is not None and exchange.head.upgrade:
            self._switching = False
            self.client.go(_MAY_SWITCH)
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
        self.client.go(_MAY_SWITCH)
        self.client.go(_MANY_DUE)

    def server_ending(self) -> None:
        if self._body_filter is not None:
            self._filter_body(self._body_filter, b"", None)
            return
        if self._held is not None:
            if self._held.head.until_close:
                self._release_changed(self._held)
            else:
                self.let_go(self._held)  # Cut short by the server, and passed on so.
        if self._responses is not None and (rest := self._responses.rest()):
            self.client.write(rest)

    # Changing messages.
    def _begin_response(self, head: Head, data: bytes, exchange: Exchange | None) -> bytes:
        """Decide what happens to a response whose head has come; returns its first piece as it goes on."""
        link, own = self.link, exchange is not None and exchange.head.own
        if link.at(RESPONSE_DELAY) and (exchange is None or not exchange.responding):
            self.pipes.of("response").hold(self.gates(RESPONSE_DELAY, own=own))
        if exchange is not None:
            exchange.responding = True
        if head.status < 200:
            return data  # The real one follows, or another protocol.
        self._hold_if_changing(head, own)
        for active, toxic in link.at(RESPONSE_BODY):
            found = toxic.body_filter(active, head, own)
            if self._body_filter is None:
                self._body_filter = found
        if self._body_filter is not None:
            self._drop_hold()  # What is cut off is not damaged as well.
        return self._changed_head(RESPONSE_HEAD, data, head, own)

    def _changed_head(self, hook: Hook[HeadToxic], data: bytes, head: Head, own: bool) -> bytes:
        """The first piece of a message, its head as toxics change it."""
        for active, toxic in self.link.at(hook):
            data = toxic.change_head(active, data, head, own)
        return data

    def _filter_body(self, body_filter: BodyFilter, data: bytes, piece: HttpPiece | None) -> None:
        if piece is not None:
            is_head = piece.head is not None
            self.client.write(body_filter.passing(data, is_head=is_head, is_end=piece.end))
        if piece is None or body_filter.done:
            body_filter.active.hit(body_filter.own)
            self._body_filter = None
            self._finish()

    def _hold_if_changing(self, head: Head, own: bool) -> None:
        changes: dict[ActiveToxic, Callable[[bytes], bytes]] = {}
        for active, toxic in self.link.at(WHOLE_RESPONSE):
            if (change := toxic.change_of(active, head, own)) is not None:
                changes[active] = change
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

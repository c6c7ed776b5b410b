"""Relays a RESP link (Redis, Valkey) request by request; bytes stay as they are unless a toxic changes a value.

So a delay acts once a request, and toxics can change the values that reads return.

Replies are matched to requests in order. What is not RESP, or has become a stream without requests (subscriptions,
replication, a client that wants no replies), is relayed as it comes, as on a TCP link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from monkeyproof.faults.proxy.collected import CollectedMessage
from monkeyproof.faults.proxy.gate import Gate
from monkeyproof.faults.proxy.hooks import READ, ReadToxic
from monkeyproof.faults.proxy.relay import RelayLink
from monkeyproof.faults.proxy.resp import framing as resp
from monkeyproof.faults.proxy.resp.framing import OWN_NAME, NotResp, Read, RespFramer, RespPiece
from monkeyproof.faults.proxy.resp.values import ReadValue, Row, Value
from monkeyproof.faults.proxy.tcp import TcpRelay
from monkeyproof.faults.proxy.toxic import ActiveToxic

MAX_HELD_BYTES = 8 * 1024 * 1024
"""A longer reply is passed on as it is."""
MAX_REQUEST_BYTES = 256 * 1024
"""A longer request is passed on without being parsed."""
MAX_DUE_BYTES = 1024 * 1024
"""Of the requests whose replies are due; those beyond are only counted."""
_WITHOUT_REPLIES = frozenset({b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"MONITOR", b"SYNC", b"PSYNC"})
"""After these, replies do not answer requests any more."""


@dataclass(slots=True)
class Due:
    """Consecutive requests whose replies are due, and of which the same is known."""

    request: bytes | None
    """A read (or HELLO) as it was sent; None for what is only counted."""
    count: int = 1


class HeldReply(CollectedMessage):
    """A reply that toxics change."""

    def __init__(
        self, relay: RespRelay, toxics: Sequence[tuple[ActiveToxic, ReadToxic]], reads: Sequence[Read]
    ) -> None:
        self.toxics, self.reads = toxics, reads
        super().__init__(active for active, _ in toxics)
        self._relay = relay

    def release(self) -> None:
        self._relay.let_go(self)


class RespRelay(TcpRelay):
    """One client connection of a Redis link."""

    def __init__(self, link: RelayLink) -> None:
        self._requests: RespFramer | None = RespFramer(requests=True)
        self._replies: RespFramer | None = RespFramer(requests=False)
        self._due: deque[Due] = deque()
        self._due_bytes = 0
        self._reading: bytearray | None = None
        """The request that is being read; None if it is too long to be parsed."""
        self._own = False
        self._resp3 = False
        self._held: HeldReply | None = None
        super().__init__(link)

    # Requests.
    def from_client(self, data: bytes) -> None:
        if self._requests is None:
            super().from_client(data)
            return
        self._requests.feed(data)
        plain: list[bytes] = []
        while self._requests is not None:
            try:
                piece = self._requests.next()
            except NotResp:
                self._relay_blindly(plain)
                return
            if piece is None:
                break
            gates = self._note(piece)
            if gates:
                self._forward(plain)
                self.forward(piece.data, gates)
            else:
                plain.append(piece.data)
            if piece.end and not piece.silent and self._ended(piece):
                self._relay_blindly(plain)
                return
        self._forward(plain)

    def _forward(self, plain: list[bytes]) -> None:
        if plain:
            self.forward(b"".join(plain))
            plain.clear()

    def _note(self, piece: RespPiece) -> Sequence[Gate]:
        """Collect the request; what holds it, if it begins here."""
        if piece.start:
            self._reading = bytearray()
        if self._reading is not None:
            self._reading += piece.data
            if len(self._reading) > MAX_REQUEST_BYTES:
                self._reading = None
        if not piece.start or piece.silent:
            return ()
        if piece.end and resp.name_of(piece.data) == b"CLIENT":
            asked = resp.words(piece.data)
            self._own |= [word.upper() for word in asked[1:2]] == [b"SETNAME"] and asked[2:] == [OWN_NAME]
        return self.gates(own=self._own) if self.link.request_delays else ()

    def _ended(self, piece: RespPiece) -> bool:
        """A request is complete: its reply is due. Returns whether replies no longer answer requests."""
        request = bytes(self._reading) if self._reading is not None else piece.data
        name = resp.name_of(request) if self._reading is not None else b""
        self._reading = None
        if name in _WITHOUT_REPLIES:
            return True
        if name == b"CLIENT" and [word.upper() for word in resp.words(request)[1:2]] == [b"REPLY"]:
            return True
        kept = name in resp.READS or name in (b"HELLO", b"RESET")
        if kept and self._due_bytes + len(request) <= MAX_DUE_BYTES:
            self._due.append(Due(request))
            self._due_bytes += len(request)
        elif self._due and self._due[-1].request is None:
            self._due[-1].count += 1
        else:
            self._due.append(Due(None))
        return False

    def _relay_blindly(self, plain: list[bytes]) -> None:
        """From here on pass bytes on only."""
        requests, replies = self._requests, self._replies
        self._requests = self._replies = None
        self._due.clear()
        self._due_bytes = 0
        if self._held is not None:
            self.let_go(self._held)
        if replies is not None and (rest := replies.rest()):
            self._write_now(rest)
        if requests is not None and (rest := requests.rest()):
            plain.append(rest)
        self._forward(plain)

    def client_ending(self) -> None:
        if self._requests is not None and (rest := self._requests.rest()):
            self.forward(rest)  # The beginning of a request: the server answers what is incomplete.

    # Replies.
    def from_server(self, data: bytes) -> None:
        if self._replies is None:
            self._write_now(data)
            return
        self._replies.feed(data)
        out: list[bytes] = []
        while self._replies is not None:
            try:
                piece = self._replies.next()
            except NotResp:
                self._write(out)
                self._relay_blindly([])
                return
            if piece is None:
                break
            self._relay_reply(piece, out)
        self._write(out)

    def _write_now(self, data: bytes) -> None:
        """To the client, as a TCP link would."""
        super().from_server(data)

    def _write(self, out: list[bytes]) -> None:
        if out:
            self._write_now(b"".join(out))
            out.clear()

    def _relay_reply(self, piece: RespPiece, out: list[bytes]) -> None:
        if piece.start and piece.kind != resp.PUSH and self._due and self._due[0].request is not None:
            self._hold_if_changing(self._due[0].request)
        if self._held is None:
            out.append(piece.data)
        else:
            self._held.add(piece.data)
            if self._held.size_bytes > MAX_HELD_BYTES:
                for active, _ in self._held.toxics:
                    active.count("skipped")
                out.extend(self._drop_hold())
            elif piece.end:
                held = self._held
                out.append(self._changed(held, b"".join(self._drop_hold())))
        if piece.end and piece.kind != resp.PUSH:
            self._answered(piece)

    def _answered(self, piece: RespPiece) -> None:
        if not self._due:
            return  # Sent by the server unasked, such as that it has too many clients.
        first = self._due[0]
        if first.request is not None:
            self._due_bytes -= len(first.request)
            name = resp.name_of(first.request)
            if name == b"HELLO" and piece.start and piece.kind in b"*%":
                self._resp3 = piece.kind == ord("%")
            elif name == b"RESET":
                self._resp3 = False
        first.count -= 1
        if not first.count:
            self._due.popleft()

    def server_ending(self) -> None:
        if self._held is not None:
            self.let_go(self._held)  # Cut short by the server, and passed on so.
        if self._replies is not None and (rest := self._replies.rest()):
            self._write_now(rest)

    # Changing what reads return.
    def _hold_if_changing(self, request: bytes) -> None:
        toxics = self.link.at(READ)
        reads = resp.reads_of(resp.words(request)) if toxics else []
        if reads:
            self._held = HeldReply(self, toxics, reads)

    def let_go(self, held: HeldReply) -> None:
        """Pass on unchanged what was collected so far; the rest of the reply follows as it comes."""
        if held is self._held:
            for data in self._drop_hold():
                self._write_now(data)

    def _drop_hold(self) -> list[bytes]:
        held, self._held = self._held, None
        if held is None:
            return []
        for active, _ in held.toxics:
            active.held.discard(held)
        return held.pieces

    def _forget(self) -> None:
        super()._forget()
        self._drop_hold()

    def _changed(self, held: HeldReply, reply: bytes) -> bytes:
        values = _values_of(held.reads, reply)
        for active, toxic in held.toxics:
            active.draw(self._own)
            if values is None:
                active.count("not_values")  # An error, or what a transaction replies in between.
                continue
            made = toxic.rewrite(active, values)
            if made != values:
                active.hit(self._own)
                if not self._own:
                    toxic.note(active, values, made)
                values, reply = made, self._encoded(reply, made)
        return reply

    def _encoded(self, reply: bytes, read_values: Sequence[ReadValue]) -> bytes:
        nil = b"_\r\n" if self._resp3 else b"$-1\r\n"

        def of(value: bytes | None) -> bytes:
            return nil if value is None else resp.bulk(value)

        if read_values and isinstance(read_values[0].value, tuple):
            row: Row = read_values[0].value
            count = len(row) if reply[:1] == b"%" else 2 * len(row)
            body = b"".join(resp.bulk(one) for pair in row for one in pair)
            return b"%b%d\r\n%b" % (reply[:1], count, body)
        values = [one.value for one in read_values if not isinstance(one.value, tuple)]
        if reply[:1] == b"*":
            return b"*%d\r\n%b" % (len(values), b"".join(map(of, values)))
        return of(values[0]) if values else nil


def _values_of(reads: Sequence[Read], reply: bytes) -> list[ReadValue] | None:
    """What a reply says, read by read; None if it is no reply with values."""
    found = resp.elements(reply)
    if reads[0].name == b"HGETALL":
        values = [resp.payload_of(one) for one in found or ()]
        if found is None or None in values or len(values) % 2:
            return None
        known = [value for value in values if value is not None]
        return [ReadValue(reads[0], tuple(zip(known[::2], known[1::2], strict=True)))]
    single = found is None
    raw = [reply] if found is None else found
    if len(raw) != len(reads) or (single and len(reads) != 1):
        return None
    values_found: list[Value] = []
    for one in raw:
        payload = resp.payload_of(one)
        if payload is None and not resp.is_nil(one):
            return None
        values_found.append(payload)
    return [ReadValue(read, value) for read, value in zip(reads, values_found, strict=True)]

"""The hooks of a link: where toxics act, and what the link asks of a toxic there.

| hook | protocols | the link calls |
|---|---|---|
| ``LINK`` | all | nothing: it reads what becomes of all connections, old and new |
| ``CONNECTION`` | all | ``meet``, once for each connection |
| ``REQUEST_DELAY`` | all | ``delay_ms``, for each request (TCP: each chunk of the client's) |
| ``RESPONSE_DELAY`` | http | ``delay_ms``, for each response |
| ``REFUSAL`` | http | ``refusal``, for each request |
| ``REQUEST_HEAD``, ``RESPONSE_HEAD`` | http | ``change_head``, for the first piece of each message |
| ``RESPONSE_BODY`` | http | ``body_filter``, for each response whose head has come |
| ``WHOLE_RESPONSE`` | http | ``change_of``, for each response whose head has come |
| ``READ`` | redis | ``rewrite``, for each reply to a read |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from monkeyproof.faults.proxy.byte_filters import ByteFilter, ByteStream
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.request_random import chosen
from monkeyproof.faults.proxy.resp.values import ReadValue
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook, ToxicKind

DIRECTIONS = ("request", "response")


class LinkToxic(ToxicKind):
    """Acts on a link as a whole."""

    @property
    def resets(self) -> bool:
        """Whether new connections are reset as soon as they are accepted."""
        return False

    @property
    def refuses(self) -> bool:
        """Whether the kernel refuses new connections."""
        return False

    @property
    def hangs(self) -> bool:
        """Whether no connection is read."""
        return False


class ConnectionPipes(Protocol):
    """What a toxic may do to one connection. All of it ends when the toxic is removed."""

    def place(
        self, active: ActiveToxic, direction: str, make: Callable[[ActiveToxic, ByteStream], ByteFilter]
    ) -> None:
        """Let a filter act on the bytes of a direction from now on."""

    def block(self, active: ActiveToxic, direction: str) -> None:
        """Read nothing more of a direction."""


class ConnectionToxic(ToxicKind, ABC):
    """Acts on the bytes of connections."""

    @abstractmethod
    def meet(self, active: ActiveToxic, pipes: ConnectionPipes) -> None:
        """Decide whether to hit a connection, and do so. Live connections come first, in the order in which they
        were accepted; then each new one."""


@dataclass(frozen=True, kw_only=True)
class ShareOfConnections(ConnectionToxic):
    """Hits a ``share`` of the connections, which (seed, the connection's number) chooses, in one direction.

    Connections are numbered from the moment that the toxic comes.
    """

    seed: int
    direction: str
    share: float = 1.0

    directions: ClassVar[tuple[str, ...]] = DIRECTIONS

    def __post_init__(self) -> None:
        self.check(self.direction in self.directions, f"direction is {' or '.join(map(repr, self.directions))}")
        self.check(0 < self.share <= 1, "share is in (0, 1]")

    def meet(self, active: ActiveToxic, pipes: ConnectionPipes) -> None:
        number = active.draw(False)
        if self.hits(number):
            self.strike(active, pipes, number)

    def hits(self, number: int) -> bool:
        """Whether connection ``number`` is chosen."""
        return chosen(self.seed, self.share, number)

    def strike(self, active: ActiveToxic, pipes: ConnectionPipes, number: int) -> None:
        """Hit connection ``number``."""
        for direction in DIRECTIONS if self.direction == "both" else (self.direction,):
            pipes.place(active, direction, lambda active, stream: self.filter(active, stream, number))

    def filter(self, active: ActiveToxic, stream: ByteStream, number: int) -> ByteFilter:
        """What acts on the bytes of connection ``number``."""
        raise NotImplementedError


class DelayToxic(ToxicKind, ABC):
    """Holds messages for a while."""

    @abstractmethod
    def delay_ms(self, n: int, *, own: bool = False) -> float | None:
        """The delay of message ``n``; None if it is not chosen."""


class ProxyResponse(NamedTuple):
    """The response that the proxy gives in the server's place."""

    status: int
    retry_after_s: float | None = None


class RefusingToxic(ToxicKind, ABC):
    """Answers requests in the server's place."""

    @abstractmethod
    def refusal(self, active: ActiveToxic, own: bool) -> ProxyResponse | None:
        """The response to the request that has just arrived; None if it passes. Every toxic decides on every
        request, and the first that refuses it answers."""


@dataclass(frozen=True, kw_only=True)
class ShareOfMessages(ToxicKind):
    """Hits a ``share`` of the requests or responses, which (seed, the message's number) chooses."""

    seed: int
    share: float = 1.0

    def __post_init__(self) -> None:
        self.check(0 < self.share <= 1, "share is in (0, 1]")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.share, n, own=own)


class HeadToxic(ToxicKind, ABC):
    """Changes the head of messages. Where the message ends must not change: the body follows as it is."""

    @abstractmethod
    def change_head(self, active: ActiveToxic, piece: bytes, head: Head, own: bool) -> bytes:
        """The first piece of a message, which holds its whole head, as it goes on."""


class BodyFilter(Protocol):
    """Acts on one response."""

    active: ActiveToxic
    own: bool
    done: bool
    """Whether all that passes has passed, so that the connection can be closed."""

    def passing(self, data: bytes, *, is_head: bool, is_end: bool) -> bytes:
        """What goes on of the next piece."""


class BodyToxic(ToxicKind, ABC):
    """Cuts responses off."""

    @abstractmethod
    def body_filter(self, active: ActiveToxic, head: Head, own: bool) -> BodyFilter | None:
        """What acts on the response; None if it passes. Every toxic decides on every response, and the first
        filter acts."""


class WholeResponseToxic(ToxicKind, ABC):
    """Changes responses that the link has collected whole."""

    @abstractmethod
    def change_of(self, active: ActiveToxic, head: Head, own: bool) -> Callable[[bytes], bytes] | None:
        """What makes another response of the collected bytes; None if this response passes as it comes."""


class ReadToxic(ToxicKind, ABC):
    """Changes the values that reads of a feature store return."""

    @abstractmethod
    def rewrite(self, active: ActiveToxic, values: Sequence[ReadValue]) -> list[ReadValue]:
        """The values of one reply as the client gets them."""

    @abstractmethod
    def note(self, active: ActiveToxic, before: Sequence[ReadValue], after: Sequence[ReadValue]) -> None:
        """Remember what a user received in place of what the store held."""


LINK: Hook[LinkToxic] = Hook("link", LinkToxic)
CONNECTION: Hook[ConnectionToxic] = Hook("connection", ConnectionToxic)
REQUEST_DELAY: Hook[DelayToxic] = Hook("request_delay", DelayToxic)
RESPONSE_DELAY: Hook[DelayToxic] = Hook("response_delay", DelayToxic, splits_messages=True)
REFUSAL: Hook[RefusingToxic] = Hook("refusal", RefusingToxic)
REQUEST_HEAD: Hook[HeadToxic] = Hook("request_head", HeadToxic, splits_messages=True)
RESPONSE_HEAD: Hook[HeadToxic] = Hook("response_head", HeadToxic, splits_messages=True)
RESPONSE_BODY: Hook[BodyToxic] = Hook("response_body", BodyToxic, splits_messages=True)
WHOLE_RESPONSE: Hook[WholeResponseToxic] = Hook("whole_response", WholeResponseToxic, splits_messages=True)
READ: Hook[ReadToxic] = Hook("read", ReadToxic)

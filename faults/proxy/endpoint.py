"""One of the two connections of a relay: how it is read, held back, ended and reset."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Protocol, cast

QUEUE_BYTES = 256 * 1024
"""How much may wait between the two endpoints before the sending one is no longer read."""
_HANGS = "the link hangs"


class Outlet(Protocol):
    """Takes what is written to an endpoint while a toxic acts on that direction."""

    def write(self, data: bytes) -> None: ...

    def end(self) -> None: ...


class EndpointOwner(Protocol):
    """What an endpoint needs of the relay that it belongs to."""

    closed: bool

    def side_made(self, side: Endpoint) -> None: ...

    def received(self, side: Endpoint, data: bytes) -> None: ...

    def side_ended(self, side: Endpoint) -> None: ...

    def side_lost(self, error: Exception | None) -> None: ...

    def other(self, side: Endpoint) -> Endpoint: ...

    def reset(self) -> None: ...


def reset_socket(sock: socket.socket) -> None:
    """Have the next close send a reset, at once and without what is still unsent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Endpoint(asyncio.Protocol):
    """One of the two connections of a relay."""

    def __init__(self, relay: EndpointOwner) -> None:
        self._relay = relay
        self.transport: asyncio.Transport | None = None
        self.eof = False
        self.lost = False
        self.outlet: Outlet | None = None
        """Takes whatever is written to this side, and hands on what is to be sent."""
        self._holds: set[str] = set()
        self._ended = False
        self._hung = False
        self._unread: list[bytes] = []  # b"" is end-of-file.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._relay.closed:
            self.abort()
            return
        self.transport.set_write_buffer_limits(high=QUEUE_BYTES)
        # Not here: uvloop starts to read after this call, even if reading was paused in it.
        asyncio.get_running_loop().call_soon(self._pause_if_held)
        self._relay.side_made(self)

    def _pause_if_held(self) -> None:
        if self._holds and self.usable and self.transport is not None:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self._hung:
            self._unread.append(data)
        else:
            self._relay.received(self, data)

    def eof_received(self) -> bool:
        if self._hung:
            self._unread.append(b"")
        else:
            self.eof = True
            self._relay.side_ended(self)
        return True  # The other half stays open.

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._relay.side_lost(error)

    def pause_writing(self) -> None:
        self._relay.other(self).hold("the other side is full")

    def resume_writing(self) -> None:
        self._relay.other(self).go("the other side is full")

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.lost and not self.transport.is_closing()

    def hang(self, on: bool) -> None:
        """Stop taking data in, or start again. What the event loop had read already waits with the rest."""
        self._hung = on
        if on:
            self.hold(_HANGS)
            return
        unread, self._unread = self._unread, []
        for data in unread:
            self.data_received(data) if data else self.eof_received()
        self.go(_HANGS)

    @property
    def only_hangs(self) -> bool:
        """Whether nothing else keeps it from being read."""
        return self._holds == {_HANGS}

    def hold(self, why: str) -> None:
        """Stop reading until ``go`` has removed every reason."""
        self._holds.add(why)
        self._pause_if_held()

    def go(self, why: str) -> None:
        """Remove a reason not to read."""
        if why in self._holds:
            self._holds.discard(why)
            if not self._holds and self.usable and self.transport is not None:
                self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self.outlet is None:
            self.send(data)
        else:
            self.outlet.write(data)

    def end(self) -> None:
        """Send end-of-file after what is still unsent."""
        if self.outlet is not None:
            self.outlet.end()
        else:
            self.send_end()

    def send(self, data: bytes) -> None:
        """Write past the outlet. After the end nothing can be sent: like a machine that has left, it resets."""
        if self._ended and not self._relay.closed:
            self._relay.reset()
            return
        transport = self.transport
        if transport is not None and not self.lost and not transport.is_closing():
            transport.write(data)

    def send_end(self) -> None:
        """End past the outlet."""
        self._ended = True
        if self.usable and self.transport is not None:
            with contextlib.suppress(OSError, RuntimeError):  # The peer may have closed already.
                self.transport.write_eof()

    def close(self) -> None:
        if self.usable and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self.transport is not None and not self.lost:
            with contextlib.suppress(OSError):
                reset_socket(self.transport.get_extra_info("socket"))
            self.transport.abort()

    def unsent_bytes(self) -> int:
        """How much of what was written the peer has not confirmed yet."""
        if not self.usable or self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + self._queued_bytes(termios.TIOCOUTQ)

    def waiting_bytes(self) -> int:
        """How much the peer sent that was not read yet."""
        unread = sum(map(len, self._unread))
        return unread + self._queued_bytes(termios.FIONREAD) if self.usable else unread

    def _queued_bytes(self, which: int) -> int:
        """How much the kernel holds, unread or unconfirmed."""
        if self.transport is None:
            return 0
        count = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), which, count)
        return count[0]

"""A link: the address it listens on, the one it forwards to, and the toxics that are on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.endpoint import reset_socket
from monkeyproof.faults.proxy.hooks import CONNECTION, LINK, REFUSAL, REQUEST_DELAY, DelayToxic, RefusingToxic
from monkeyproof.faults.proxy.relay import Relay, RelayLink
from monkeyproof.faults.proxy.timers import Timers
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook, ToxicKind

BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_ACCEPT_RETRY_S = 0.1
T = TypeVar("T", bound=ToxicKind)


class ProxyLink:
    """One network path of the target."""

    def __init__(
        self,
        name: str,
        listen: tuple[str, int],
        forward: tuple[str, int],
        protocol: str,
        relay: Callable[[RelayLink], Relay],
        loop: asyncio.AbstractEventLoop,
        timers: Timers,
    ) -> None:
        self.name, self.forward, self.protocol, self.loop = name, forward, protocol, loop
        self.timers = timers
        self.relays: set[Relay] = set()
        self.toxics: list[ActiveToxic] = []
        self.hung = False
        self.splits_messages = False
        """Whether a toxic acts on messages, so that an HTTP relay has to take them apart."""
        # Read for each request that passes: quicker than ``at``.
        self.refusals: Sequence[tuple[ActiveToxic, RefusingToxic]] = ()
        self.request_delays: Sequence[tuple[ActiveToxic, DelayToxic]] = ()
        self.connections = 0
        """Accepted so far."""
        self._relay = relay
        self._tasks: set[asyncio.Task[Any]] = set()
        self._by_hook: dict[Hook[Any], list[tuple[ActiveToxic, Any]]] = {}
        self._resetting: ActiveToxic | None = None
        self._refusing = False
        self._socket = _bind(name, listen)
        self._listen()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        self._stop_listening()
        self._socket.close()
        for relay in list(self.relays):
            relay.reset()
        for task in self._tasks:
            task.cancel()

    def spawn(self, what: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else, and keep it from being collected meanwhile."""
        task = self.loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Toxics.
    def at(self, hook: Hook[T]) -> Sequence[tuple[ActiveToxic, T]]:
        """The toxics that act at a hook, in the order in which they came."""
        return self._by_hook.get(hook, ())

    def add(self, active: ActiveToxic) -> None:
        """Put a toxic on; it is in force for live connections too when this returns."""
        self.toxics.append(active)
        self._apply_toxics()
        for one, toxic in self.at(CONNECTION):
            if one is active:
                for relay in sorted(self.relays, key=lambda one: one.number):
                    toxic.meet(active, relay.pipes)
        active.toxic.placed(active, self)

    def remove(self, active: ActiveToxic) -> None:
        """Take a toxic off; what it held flows on at once."""
        self.toxics.remove(active)
        self._apply_toxics()
        active.release()
        for relay in list(self.relays):
            relay.pipes.remove(active)

    def _apply_toxics(self) -> None:
        """Sort the toxics by hook, and do what those that act on the link as a whole ask for."""
        self._by_hook = {}
        for active in self.toxics:
            self._by_hook.setdefault(active.toxic.hook_on(self.protocol), []).append((active, active.toxic))
        self.splits_messages = any(hook.splits_messages for hook in self._by_hook)
        self.refusals, self.request_delays = self.at(REFUSAL), self.at(REQUEST_DELAY)
        self._resetting = next((active for active, toxic in self.at(LINK) if toxic.resets), None)
        refusing = any(toxic.refuses for _, toxic in self.at(LINK))
        if refusing != self._refusing:
            self._refusing = refusing
            (self._stop_listening if refusing else self._listen)()
        hung = any(toxic.hangs for _, toxic in self.at(LINK))
        if hung != self.hung:
            self.hung = hung
            for relay in list(self.relays):
                relay.hang()

    # Connections.
    def _listen(self) -> None:
        self._socket.listen(BACKLOG)
        self.loop.add_reader(self._socket.fileno(), self._accept)

    def _stop_listening(self) -> None:
        # The socket stays bound, so no other process can take the port, and the kernel refuses connections to it.
        self.loop.remove_reader(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, _peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # Out of file descriptors: those who wait stay in the backlog for a moment.
                self.loop.remove_reader(self._socket.fileno())
                self.loop.call_later(_ACCEPT_RETRY_S, self._accept_again)
                return
            if self._resetting is not None:
                self._resetting.affected += 1
                self._resetting.count("new_connections")
                reset_socket(sock)
                sock.close()
                continue
            sock.setblocking(False)
            self.spawn(self._serve(sock))

    def _accept_again(self) -> None:
        if not self._refusing and self._socket.fileno() >= 0:
            self.loop.add_reader(self._socket.fileno(), self._accept)

    async def _serve(self, sock: socket.socket) -> None:
        relay = self._relay(self)
        try:
            await self.loop.connect_accepted_socket(lambda: relay.client, sock)
        except OSError:
            relay.reset()
            sock.close()


def _bind(name: str, address: tuple[str, int]) -> socket.socket:
    """A bound socket. Port 0 is settled first: only a port that was asked for stays bound while not listening.

    Raises:
        UsageError: the address is taken, or not this machine's.
    """
    host, port = address
    if port == 0:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UsageError(
            f"link {name!r}: cannot listen on {host}:{port}: {error.strerror}; end what uses it, "
            "or choose another port"
        ) from None
    return sock

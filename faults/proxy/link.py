"""A link: the address it listens on, the one it forwards to, and the toxics that sit on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.endpoint import reset_socket
from monkeyproof.faults.proxy.relay import Gate, Relay
from monkeyproof.faults.proxy.timers import Timers
from monkeyproof.faults.proxy.toxics.connections import OnConnections, Partition
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.messages import Garble, LoseHeaders, Refusing, Truncate
from monkeyproof.faults.proxy.toxics.registry import Active, CorruptRecords, Down, Hang

BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_ACCEPT_RETRY_S = 0.1
_ON_WHOLE_MESSAGES = (Latency, Refusing, Down, Hang, OnConnections)


class Link:
    """One network path of the target."""

    def __init__(
        self,
        name: str,
        listen: tuple[str, int],
        forward: tuple[str, int],
        protocol: str,
        relay: Callable[[Link], Relay],
        loop: asyncio.AbstractEventLoop,
        timers: Timers,
    ) -> None:
        self.name, self.forward, self.protocol, self.loop = name, forward, protocol, loop
        self.timers = timers
        self.relays: set[Relay] = set()
        self.toxics: list[Active] = []
        self.hung = False
        self.holds_requests = self.holds_answers = False
        """Whether a toxic delays them."""
        self.messages_stay_whole = True
        """Whether no toxic looks into messages, so that an HTTP relay need not take them apart."""
        self.connections = 0
        """Accepted so far."""
        self.connect_failures = 0
        self._relay = relay
        self._tasks: set[asyncio.Task[Any]] = set()
        self.errors: list[tuple[Active, Refusing]] = []
        self.corruptions: list[Active] = []
        """What changes answers that have to be collected whole."""
        self.truncations: list[tuple[Active, Truncate]] = []
        self.header_losses: list[tuple[Active, LoseHeaders]] = []
        self.on_connections: list[tuple[Active, OnConnections | Latency]] = []
        self._latencies: list[tuple[Active, Latency]] = []
        self._answer_latencies: list[tuple[Active, Latency]] = []
        self._resetting: Active | None = None
        self._refusing = False
        self._socket = _bind(name, listen)
        self._listen()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return str(host), int(port)

    @property
    def values(self) -> list[Active]:
        """Toxics that change what reads of a feature store bring back."""
        return [one for one in self.toxics if one.maker is not None]

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
    def add(self, active: Active) -> None:
        """Put a toxic on; it is in force for live connections too when this returns."""
        self.toxics.append(active)
        if isinstance(active.parameters, Hang):
            active.sample = lambda: self._stalled(active)
        if isinstance(active.parameters, Partition):
            active.sample = lambda: self._held_back(active)
        self._refresh()
        for one, toxic in self.on_connections:
            if one is active:
                for relay in sorted(self.relays, key=lambda one: one.number):
                    relay.flows.meet(active, toxic)
        if isinstance(active.parameters, Down):
            active.affected += len(self.relays)
            active.count("live_connections", len(self.relays))
            active.count("new_connections", 0)
            for relay in list(self.relays):
                relay.reset()

    def remove(self, active: Active) -> None:
        """Take a toxic off; what it held flows on at once."""
        self.toxics.remove(active)
        self._refresh()
        active.release()
        for relay in list(self.relays):
            relay.flows.part(active)

    def _refresh(self) -> None:
        latencies = [(one, one.parameters) for one in self.toxics if isinstance(one.parameters, Latency)]
        self._latencies = [pair for pair in latencies if pair[1].direction == "request"]
        of_answers = [pair for pair in latencies if pair[1].direction == "response"]
        self._answer_latencies = of_answers if self.protocol == "http" else []
        self.holds_requests, self.holds_answers = bool(self._latencies), bool(self._answer_latencies)
        self.errors = [(one, one.parameters) for one in self.toxics if isinstance(one.parameters, Refusing)]
        self.corruptions = [one for one in self.toxics if isinstance(one.parameters, CorruptRecords | Garble)]
        self.truncations = [(one, one.parameters) for one in self.toxics if isinstance(one.parameters, Truncate)]
        self.header_losses = [
            (one, one.parameters) for one in self.toxics if isinstance(one.parameters, LoseHeaders)
        ]
        self.on_connections = [
            *((one, one.parameters) for one in self.toxics if isinstance(one.parameters, OnConnections)),
            *(of_answers if self.protocol != "http" else []),
        ]
        self.messages_stay_whole = not self.holds_answers and all(
            isinstance(one.parameters, _ON_WHOLE_MESSAGES) for one in self.toxics
        )
        downs = [(one, one.parameters) for one in self.toxics if isinstance(one.parameters, Down)]
        self._resetting = downs[0][0] if downs else None
        refusing = any(down.mode == "refuse-like" for _, down in downs)
        if refusing != self._refusing:
            self._refusing = refusing
            (self._stop_listening if refusing else self._listen)()
        hung = any(isinstance(one.parameters, Hang) for one in self.toxics)
        if hung != self.hung:
            self.hung = hung
            for relay in list(self.relays):
                relay.hang()

    def gates(self, relay: Relay, *, own: bool = False) -> list[Gate]:
        """What holds the request (or chunk) that just arrived. Several delays run at the same time."""
        return [Gate(*what) for what in self._delays(self._latencies, relay, own)]

    def answer_gates(self, relay: Relay, *, own: bool = False) -> list[Gate]:
        """The same for the answer (or chunk of the server's) that just arrived."""
        return [Gate(*what) for what in self._delays(self._answer_latencies, relay, own)]

    @staticmethod
    def _delays(
        latencies: list[tuple[Active, Latency]], relay: Relay, own: bool
    ) -> Iterator[tuple[Active, Relay, float, bool]]:
        for active, latency in latencies:
            delay_ms = latency.delay_ms(active.draw(own), own=own)
            if delay_ms is not None:
                yield active, relay, delay_ms, own

    def _stalled(self, active: Active) -> Mapping[str, float]:
        """What waits because of this one alone: of several that hang, because of the oldest."""
        first = next((one for one in self.toxics if isinstance(one.parameters, Hang)), None)
        waiting = [relay.hung_bytes() for relay in self.relays] if active is first else []
        return {
            "affected": sum(one > 0 for one in waiting),
            "waiting_bytes": sum(waiting),
            "connections": len(waiting),
        }

    def _held_back(self, active: Active) -> Mapping[str, float]:
        """What waits behind a partition, and would not wait for a link that hangs anyway."""
        waiting = [
            (relay.client if direction == "request" else relay.server).waiting_bytes()
            for relay in self.relays
            if not self.hung and (direction := relay.flows.partitioned(active))
        ]
        return {
            "affected": sum(one > 0 for one in waiting),
            "waiting_bytes": sum(waiting),
            "connections": len(waiting),
        }

    # Connections.
    def _listen(self) -> None:
        self._socket.listen(BACKLOG)
        self.loop.add_reader(self._socket.fileno(), self._accept)

    def _stop_listening(self) -> None:
        # The socket stays bound, so nobody can take the port, and the kernel refuses connections to it.
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

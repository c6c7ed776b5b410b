"""Relaying a link of any protocol over TCP: bytes are bytes, and a chunk is what arrived at once."""

from __future__ import annotations

from monkeyproof.faults.proxy.relay import Relay


class TcpRelay(Relay):
    """Connects to the server at once, since the server may send first."""

    def client_made(self) -> None:
        if not self.stalled:
            self.connect()

    def from_client(self, data: bytes) -> None:
        self.forward(data, self.gates() if self.link.request_delays else ())

    def hang(self) -> None:
        super().hang()
        if not self.stalled and self.client.transport is not None:
            self.connect()

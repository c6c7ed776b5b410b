"""A client of a control socket that reconnects when the server was restarted."""

from __future__ import annotations

import threading
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.runtime.rpc import Client
from monkeyproof.types import Json

CLOSED_WITHIN_S = 2.0


HUNG_S = 2.0
"""Time limit for a server that has just not answered in time: the end of a trial calls it several times more."""


class ReconnectingClient:
    """Connects on first use, and again after any failure. Not for a server whose connections own things."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._hung = False

    def call(self, method: str, *, timeout_s: float | None = None, **params: Json) -> Json:
        """One request.

        Raises:
            TargetError: no answer came, or the answer is a failure.
        """
        with self._lock:
            reused = self._client is not None
            client = self._client = self._client or Client(self._control)
            try:
                if reused:
                    # A ping first, so that a restart of the server is noticed before the request is sent.
                    client = self._client = _alive(client) or Client(self._control)
                answer = client.call(method, timeout_s=HUNG_S if self._hung else timeout_s, **params)
            except TargetError:
                self._hung = _alive(client) is None
                client.close()
                self._client = None
                raise
            self._hung = False
            return answer

    def close(self) -> None:
        """Close the connection; one on which a call hangs ends with this process."""
        if not self._lock.acquire(timeout=CLOSED_WITHIN_S):
            return
        try:
            if self._client is not None:
                self._client.close()
                self._client = None
        finally:
            self._lock.release()


def _alive(client: Client) -> Client | None:
    try:
        client.call("ping", timeout_s=HUNG_S)
    except (TargetError, OSError, ValueError):
        client.close()
        return None
    return client

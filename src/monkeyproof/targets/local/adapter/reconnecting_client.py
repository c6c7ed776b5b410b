"""Requests to a control socket whose server may be restarted in between."""

from __future__ import annotations

import threading
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.runtime.rpc import Client
from monkeyproof.types import Json

CLOSED_WITHIN_S = 2.0


HUNG_S = 2.0
"""Of a server that has just not answered in time: a trial that ends asks it several times more."""


class ReconnectingClient:
    """Opens its connection on first use, and anew after any failure: nothing is owned by the connection."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._hung = False

    def call(self, method: str, *, timeout_s: float | None = None, **params: Json) -> Json:
        """One request.

        Raises:
            TargetError: no answer, or a failure in words.
        """
        with self._lock:
            reused = self._client is not None
            client = self._client = self._client or Client(self._control)
            try:
                if reused:
                    # A server that was restarted meanwhile is noticed before anything is asked of it.
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
        """Give the connection back; one on which a call hangs ends with this process."""
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

"""Requests to a control socket whose server may be restarted in between."""

from __future__ import annotations

import threading
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.rpc import Client
from monkeyproof.types import Json


class Calls:
    """Opens its connection on first use, and anew after any failure: nothing is owned by the connection."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._client: Client | None = None
        self._lock = threading.Lock()

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
                return client.call(method, timeout_s=timeout_s, **params)
            except TargetError:
                client.close()
                self._client = None
                raise

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def _alive(client: Client) -> Client | None:
    try:
        client.call("ping")
    except (TargetError, ValueError):
        client.close()
        return None
    return client

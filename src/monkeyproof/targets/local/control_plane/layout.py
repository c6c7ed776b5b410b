"""The layout of the embedded target: folder, sockets, ports and links of its parts."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.errors import UsageError
from monkeyproof.runtime import procfs
from monkeyproof.types import Json

REPLICAS = ("replica-1", "replica-2", "replica-3")
CLIENT_LINK = "client->gateway"
HEALER_REGISTRY_LINK = "healer->registry"
STATE_FILE = "stack.json"
"""The supervisor's own pid, sockets and process groups."""
PRIMED = "primed"
"""The snapshot that is taken before anything can go wrong."""
_PORTS_OF_PARTS = ("registry", "features", "source", "pipeline", "gateway", *REPLICAS)


def registry_link(replica: str) -> str:
    """The link between one replica and the registry."""
    return f"{replica}->registry"


_FORWARDS = {
    CLIENT_LINK: ("gateway", "http"),
    **{f"gateway->{name}": (name, "http") for name in REPLICAS},
    "replica->features": ("features", "redis"),
    "pipeline->features": ("features", "redis"),
    "source->pipeline": ("source", "http"),
    "replica->registry": ("registry", "http"),
    # A replica's requests pass its own link first, and then the one that all replicas share.
    **{registry_link(name): ("replica->registry", "http") for name in REPLICAS},
    HEALER_REGISTRY_LINK: ("registry", "http"),
}
_LOWEST_PORT = 15000
_TRIES = 2000


@dataclass(frozen=True, slots=True)
class StackLayout:
    """Chosen once, before any part starts; parts keep their addresses when they are restarted."""

    folder: Path
    sockets: Path
    ports: Mapping[str, int]
    """Name of a part to its own port."""
    links: Mapping[str, Mapping[str, str]]
    """{name: {listen, forward, protocol}}, as the fault proxy reads it."""

    def listen(self, link: str) -> str:
        return self.links[link]["listen"]

    def listen_port(self, link: str) -> int:
        return int(self.listen(link).rpartition(":")[2])

    def socket(self, part: str) -> Path:
        return self.sockets / f"{part}.sock"

    def log(self, part: str) -> Path:
        return self.folder / "logs" / f"{part}.log"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine"

    @property
    def serving_file(self) -> Path:
        return self.folder / "serving.json"

    @property
    def target_file(self) -> Path:
        return self.folder / "target.yaml"

    def url(self, part: str) -> str:
        return f"http://127.0.0.1:{self.ports[part]}"

    def addresses(self) -> dict[str, Json]:
        """The addresses that a client of the control port needs."""
        return {
            "folder": str(self.folder),
            "proxy": str(self.socket("proxy")),
            "fork-server": str(self.socket("fork-server")),
            "pipeline": str(self.socket("pipeline")),
            "features_port": self.ports["features"],
            "registry": self.url("registry"),
            "healer_registry": f"http://{self.listen(HEALER_REGISTRY_LINK)}",
            "replicas": {name: self.url(name) for name in REPLICAS},
            "metrics": {part: f"{self.url(part)}/metrics" for part in (*REPLICAS, "pipeline")},
        }


def choose_layout(folder: Path, sockets: Path, port: int) -> StackLayout:
    """Choose free ports; ``port`` is that of the front door, 0 for any."""
    free = free_ports()
    ports = {part: next(free) for part in _PORTS_OF_PARTS}
    listens = {link: next(free) for link in _FORWARDS}
    if port:
        listens[CLIENT_LINK] = port
    links = {
        link: {
            "listen": f"127.0.0.1:{listens[link]}",
            "forward": f"127.0.0.1:{ports.get(part) or listens[part]}",
            "protocol": protocol,
        }
        for link, (part, protocol) in _FORWARDS.items()
    }
    return StackLayout(folder, sockets, ports, links)


def free_ports() -> Iterator[int]:
    """Yield free ports of 127.0.0.1, each once.

    They lie below the range from which the kernel takes the near ends of outgoing connections: there, a part
    that is down for a moment could find its port taken, or a client could connect to itself.
    """
    highest = procfs.lowest_ephemeral_port() - 1
    choose = random.SystemRandom()
    seen: set[int] = set()
    for _ in range(_TRIES):
        port = choose.randint(_LOWEST_PORT, max(highest, _LOWEST_PORT + 1000))
        if port not in seen and is_free(port):
            seen.add(port)
            yield port
    raise UsageError(f"no free ports found on 127.0.0.1 between {_LOWEST_PORT} and {highest}")


def is_free(port: int) -> bool:
    """Whether no socket listens on that port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True

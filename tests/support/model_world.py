"""A real registry with real models, replicas that really load them, and the small target around both."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path

import numpy as np
from fault_world import RawServer

from monkeyproof.targets import port
from monkeyproof.targets.local.models import other_models
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.workload.alias_follower import ModelFollower
from monkeyproof.targets.local.workload.pins import LocalPins
from monkeyproof.targets.registry import RegistryClient

__all__ = ["Follower", "InProcess", "bad_answers"]


class Follower:
    """One replica: it looks at the registry whenever it is asked for its metrics, and tells what it serves."""

    def __init__(self, server: RawServer, registry: RegistryClient, folder: Path) -> None:
        self.registry, self.folder = registry, folder
        self.url = f"http://127.0.0.1:{server.port}/metrics"
        self.errors = 0
        self.pins = LocalPins(folder.parent)
        self.start_anew()
        server.handler = self.scrape

    def start_anew(self) -> None:
        self.model = ModelFollower(
            self.registry,
            self.folder,
            poll_s=9.0,
            on_error=self._failed,
            pin=lambda: self.pins.pinned().get("replica-1", ""),
        )

    def _failed(self) -> None:
        self.errors += 1

    @property
    def version(self) -> str:
        self.model.poll()
        return self.model.current.version if self.model.current else "0"

    def list(self) -> list[port.Replica]:
        return [port.Replica("replica-1", 1, "ready", False, "", self.url)]

    def scrape(self, connection: socket.socket) -> None:
        connection.recv(1000)
        body = b"# TYPE replica_model_version gauge\nreplica_model_version %b.0\n" % self.version.encode()
        body += (
            b"# TYPE replica_model_pinned gauge\nreplica_model_pinned %b.0\n" % (self.model.pinned or "0").encode()
        )
        body += b"# TYPE replica_registry_errors counter\nreplica_registry_errors_total %d.0\n" % self.errors
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
        )


class InProcess:
    """``port.OtherModels`` without the second that another process takes to load scikit-learn."""

    def __init__(self, data: Path) -> None:
        self.data = Entities.load(data)

    def make(self, kind: str, to: Path) -> Path:
        (to / "model.pkl").write_bytes(pickle.dumps(other_models.train(kind, self.data)))
        return to / "model.pkl"


def bad_answers(follower: Follower, folder: Path) -> int:
    """How many of 160 golden questions the replica's model answers wrongly."""
    entities = Entities.load(folder / "features.npz")
    rows = {name: row for row, name in enumerate(entities.names)}
    asked = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
    values = entities.values[[rows[one["body"]["dataframe_records"][0]["entity"]] for one in asked]]
    assert follower.model.current is not None
    with np.errstate(all="ignore"):
        answers = follower.model.current.model.predict(values)
    return int((np.asarray(answers) != [one["expect"] for one in asked]).sum())

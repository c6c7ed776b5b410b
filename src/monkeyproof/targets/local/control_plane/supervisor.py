"""The supervisor: brings every part of the embedded target up in the right order, and keeps it up."""

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
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, PRIMED, REPLICAS, Plan
from monkeyproof.targets.local.control_plane.process_supervisor import ProcessSupervisor, StartError
from monkeyproof.targets.local.control_plane.replica_set import ReplicaSet
from monkeyproof.targets.local.control_plane.services import Service
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.models.publishing import Prepared, prepare
from monkeyproof.targets.local.workload.feature_store import FeatureStore

T = TypeVar("T")
PART_WITHIN_S = 60.0
ANSWER_WITHIN_S = 15.0


class Supervisor:
    """All parts of one embedded target, in the order in which they need one another."""

    def __init__(self, plan: Plan, group: ProcessGroup, changed: Callable[[], None]) -> None:
        self.plan = plan
        self.phase = "starting"
        self.prepared: Prepared | None = None
        self.parts: dict[str, ProcessSupervisor] = {}
        self._group = group
        self._changed = changed
        self._running: list[asyncio.Task[None]] = []
        self._listener = front_door.listen(plan.ports["gateway"])
        self._front_door = front_door.FrontDoor(
            {name: plan.listen(f"gateway->{name}") for name in REPLICAS},
            self._listener.fileno(),
            plan.socket("gateway"),
            plan.folder / "caddy.json",
        )
        self.replicas = ReplicaSet(plan, group, self._front_door, changed)
        self._store = FeatureStore(plan.ports["features"], plan.snapshots)

    async def bring_up(self) -> None:
        """Start everything; returns when a question is answered through the whole of it.

        Raises:
            MonkeyproofError: a part could not be started; nothing is kept alive any more after ``close``.
        """
        write_configuration(self.plan)
        gateway = services.gateway(self.plan, self._front_door, self._listener.fileno())
        self._keep(services.fault_proxy(self.plan))
        self._keep(services.fork_server(self.plan), self.replicas.start_those_down)
        self._keep(gateway)
        self.phase = "preparing the models (only the first time)"
        self.prepared = await _in_daemon_thread(lambda: prepare(paths.cache_dir()))
        self._install(self.prepared)
        self.phase = "starting"
        self._keep(services.registry(self.plan))
        self._keep(services.source(self.plan))
        self._keep(services.feature_store(self.plan, self._fill_if_empty))
        await self._until_ready("features", "source", "proxy")
        await self._until_ready("registry", "fork-server")
        self._keep(services.pipeline(self.plan))
        self.replicas.keep(self._running)
        self.parts |= self.replicas.keepers
        await self._until_ready(*self.parts)
        await self._until_answered()
        write_target_file(self.plan)
        self.phase = "up"
        self._changed()

    async def close(self) -> None:
        """Keep nothing alive any more. The processes themselves are ended by the group."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._store.close()
        self._listener.close()

    def waiting_for(self) -> Sequence[str]:
        return [name for name, keeper in self.parts.items() if not keeper.ready.is_set()]

    def _keep(self, service: Service, became_ready: Callable[[], None] = lambda: None) -> None:
        children: dict[int, Popen[bytes]] = {}

        async def start() -> int:
            for path in service.stale:
                path.unlink(missing_ok=True)
            child = self._group.start(
                service.command(), log=self.plan.log(service.name), env=service.env, pass_fds=service.pass_fds
            )
            children[child.pid] = child
            return child.pid

        def ended(pid: int) -> None:
            # Whatever else is left of its group would hold its port.
            self._group.end(children.pop(pid))

        keeper = ProcessSupervisor(
            service.name,
            start=start,
            answers=service.answers,
            ended=ended,
            changed=self._changed,
            became_ready=became_ready,
            port=service.port,
        )
        self.parts[service.name] = keeper
        self._running.append(asyncio.create_task(keeper.run(), name=service.name))

    async def _until_ready(self, *names: str) -> None:
        for name in names:
            try:
                await self.parts[name].wait_ready(PART_WITHIN_S)
            except StartError as error:
                raise StartError(f"{error}{_last_words(self.plan.log(name))}") from None

    def _install(self, prepared: Prepared) -> None:
        """Begin from the declared state: copies of the prepared registry and of the questions."""
        shutil.copyfile(prepared.database, self.plan.folder / "mlflow.db")
        artifacts = self.plan.folder / "artifacts"
        # Not with their modes: the cache may be older than the care that is taken of them.
        shutil.copytree(prepared.artifacts, artifacts, copy_function=shutil.copyfile)
        for folder in (artifacts, *artifacts.rglob("*/")):
            folder.chmod(0o700)
        for name in ("golden.jsonl", "canary.jsonl", "features.npz"):
            shutil.copyfile(prepared.data_dir / name, self.plan.folder / name)
        clean = Entities.load(self.plan.folder / "features.npz")
        self._store.save_snapshot(PRIMED, clean.names, clean.values)

    async def _fill_if_empty(self) -> None:
        """A feature store that has just started knows nothing, as it keeps nothing on disk."""
        entities, values = self._store.load_snapshot(PRIMED)

        def fill() -> None:
            if self._store.read(entities[:1])[entities[0]] is None:
                self._store.write(entities, values)

        await asyncio.to_thread(fill)

    async def _until_answered(self) -> None:
        """The whole of it: a question through the front door comes back with an answer."""
        url = f"http://{self.plan.listen(CLIENT_LINK)}/invocations"
        body = first_question(self.plan.folder / "golden.jsonl")
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
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await result


def _last_words(path: Path) -> str:
    """Where a part's log is, and its last line."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; {path}: {last[:300]}" if last else f"; its log, {path}, is empty"

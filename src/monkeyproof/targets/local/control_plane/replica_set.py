"""The scoring replicas as the supervisor sees them: started by the fork server, kept alive, drained."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.control_plane.front_door import FrontDoor
from monkeyproof.targets.local.control_plane.layout import REPLICAS, StackLayout
from monkeyproof.targets.local.control_plane.process_supervisor import ProcessSupervisor
from monkeyproof.targets.local.control_plane.services import call, http_ok
from monkeyproof.targets.local.control_plane.start_conditions import StartConditions
from monkeyproof.targets.port import Replica, StartCondition

SETTLE_WITHIN_S = 15.0
SIGNAL_SEEN_WITHIN_S = 2.0


@dataclass
class _Pause:
    """A replica that is paused under a lease."""

    pid: int | None
    lease_s: float
    due_s: float


class ReplicaSet:
    """Implements ``port.Replicas`` and ``port.Starts`` for the control port; unknown names raise TargetError."""

    def __init__(
        self, layout: StackLayout, group: ProcessGroup, front_door: FrontDoor, changed: Callable[[], None]
    ) -> None:
        self._layout = layout
        self._group = group
        self._front_door = front_door
        self._drain_lock = asyncio.Lock()
        self._pauses: dict[str, _Pause] = {}
        self._expired: dict[str, str] = {}
        self._kills: dict[str, asyncio.TimerHandle] = {}
        """Timers that kill replicas which got SIGTERM and have not ended when their notice is over."""
        self._starts = StartConditions(self._restore_usual_start)
        self.processes = {name: self._process(name, changed) for name in REPLICAS}

    def start_all(self, running: list[asyncio.Task[None]]) -> None:
        """Start all replicas, and keep them running in tasks that are added to ``running``."""
        running += [asyncio.create_task(process.run(), name=name) for name, process in self.processes.items()]

    def restart_ended(self) -> None:
        """Start replicas that wait for their next start at once: what they lacked is available again."""
        for process in self.processes.values():
            if process.pid is None:
                process.start_at_once()

    def all(self) -> list[Replica]:
        return [self._replica(name) for name in self.processes]

    # These return when the effect is visible: a status query right after must not see the old state.

    async def kill(self, name: str) -> Replica:
        before = self._replica(name)
        await self._signal(name, signal.SIGKILL, lambda process: process.pid != before.pid)
        return before

    async def end(self, name: str, condition: StartCondition, notice_s: float, lease_s: float | None) -> Replica:
        before = self._replica(name)
        if before.pid is None:
            raise TargetError(f"{name} is not running ({before.state})")
        self._starts.impose(name, condition, lease_s)
        # Only the condition's delay counts, not the backoff after earlier deaths.
        self._named(name).start_at_once()
        if notice_s == 0:
            await self._signal(name, signal.SIGKILL, lambda process: process.pid != before.pid)
        else:
            await self._signal(name, signal.SIGTERM, lambda _: True)
            self._kills[name] = asyncio.get_running_loop().call_later(
                notice_s, self._kill_unless_ended, name, before.pid
            )
        return before

    def conditions(self) -> dict[str, StartCondition]:
        return self._starts.all()

    async def release(self, name: str) -> bool:
        self._named(name)
        self._cancel_kill(name)
        condition = self._starts.release(name)
        if condition is not None:
            await self._restore_usual_start(name, condition)
        return condition is not None

    async def _restore_usual_start(self, name: str, condition: StartCondition) -> None:
        """Restart a replica whose environment was changed: a running process cannot change it."""
        self._cancel_kill(name)
        if condition.environment and self._named(name).pid is not None:
            await self.restart(name)

    def _cancel_kill(self, name: str) -> None:
        """Do not kill a replica that got SIGTERM and has not ended."""
        if (kill := self._kills.pop(name, None)) is not None:
            kill.cancel()

    def _kill_unless_ended(self, name: str, pid: int) -> None:
        if self.processes[name].pid == pid:
            with contextlib.suppress(TargetError):
                self.processes[name].signal(signal.SIGKILL)

    def renew_starts(self, names: Sequence[str]) -> dict[str, str]:
        """As ``renew``, of what is done to their starts."""
        return self._starts.renew(names)

    async def pause(self, name: str, lease_s: float | None = None) -> None:
        self._expired.pop(name, None)
        if lease_s is not None:
            pause = self._pauses[name] = _Pause(self._named(name).pid, lease_s, time.monotonic() + lease_s)
            asyncio.get_running_loop().call_later(lease_s, self._check_lease, name, pause)
        await self._signal(name, signal.SIGSTOP, lambda process: process.state == "paused")

    def renew(self, names: Sequence[str]) -> dict[str, str]:
        """Renew the leases of paused replicas; returns which are not paused any more, and why."""
        lost = {}
        for name in names:
            pause = self._pauses.get(name)
            if pause is None or name in self._expired:
                lost[name] = self._expired.get(name, f"{name} is not paused any more")
            elif self._named(name).pid == pause.pid and self._named(name).state != "paused":
                # Another process resumed it: an improvement after that is no recovery.
                lost[name] = f"{name} is not paused any more"
            else:  # Also where a new process replaced it: that is how a healer repairs a paused replica.
                pause.due_s = time.monotonic() + pause.lease_s
        return lost

    def _check_lease(self, name: str, pause: _Pause) -> None:
        if self._pauses.get(name) is not pause:
            return
        remaining_s = pause.due_s - time.monotonic()
        if remaining_s > 0:
            asyncio.get_running_loop().call_later(remaining_s, self._check_lease, name, pause)
            return
        del self._pauses[name]
        if self.processes[name].pid == pause.pid:
            self._expired[name] = f"{name} was paused, and that not renewed for {pause.lease_s:g} s: resumed"
            with contextlib.suppress(TargetError):
                self.processes[name].signal(signal.SIGCONT)

    async def resume(self, name: str) -> None:
        self._pauses.pop(name, None)
        await self._signal(name, signal.SIGCONT, lambda process: process.state != "paused")

    async def restart(self, name: str) -> None:
        await self._named(name).restart()

    async def drain(self, name: str) -> None:
        self._named(name)
        async with self._drain_lock:
            drained = self._front_door.drained
            others = [one for one in self.all() if one.name != name and one.name not in drained]
            if not any(one.state == "ready" for one in others):
                raise TargetError(f"{name}: not drained, because no other replica would be left to serve")
            if name not in drained:
                await self._front_door.set_drained(drained | {name})

    async def undrain(self, name: str) -> None:
        self._named(name)
        async with self._drain_lock:
            if name in self._front_door.drained:
                await self._front_door.set_drained(self._front_door.drained - {name})

    async def settle(self) -> list[str]:
        """Make all replicas undrained, running and ready, without backoff; returns what had to be changed."""
        done = []
        for name in self.conditions():
            await self.release(name)
            done.append(f"something was done to the start of {name}: it starts as usual")
        for one in self.all():
            process = self.processes[one.name]
            if one.state == "paused":
                await self.resume(one.name)
                done.append(f"{one.name} was paused: resumed")
            elif one.state != "ready":
                done.append(f"{one.name} was {one.state.replace('_', ' ')}: waited until it was ready")
            if process.pid is None:
                process.start_at_once()
            process.backoff.failures = 0
            if one.drained:
                await self.undrain(one.name)
                done.append(f"{one.name} was drained: undrained")
        deadline_s = time.monotonic() + SETTLE_WITHIN_S
        while not all(one.state == "ready" for one in self.all()):
            if time.monotonic() >= deadline_s:
                states = ", ".join(f"{one.name} is {one.state}" for one in self.all())
                raise TargetError(f"the replicas are not all ready after {SETTLE_WITHIN_S:g} s: {states}")
            await asyncio.sleep(0.02)
        return done

    async def _signal(self, name: str, number: signal.Signals, seen: Callable[[ProcessSupervisor], bool]) -> None:
        process = self._named(name)
        process.signal(number)
        deadline_s = time.monotonic() + SIGNAL_SEEN_WITHIN_S
        while not seen(process) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.001)

    def _named(self, name: str) -> ProcessSupervisor:
        try:
            return self.processes[name]
        except KeyError:
            raise TargetError(f"{name!r}: no such replica; there are {', '.join(self.processes)}") from None

    def _replica(self, name: str) -> Replica:
        process = self._named(name)
        return Replica(
            name=name,
            pid=process.pid,
            state=process.state,
            drained=name in self._front_door.drained,
            link=f"gateway->{name}",
            metrics_url=f"{self._layout.url(name)}/metrics",
            starts=process.starts,
        )

    def _process(self, name: str, changed: Callable[[], None]) -> ProcessSupervisor:
        port = self._layout.ports[name]

        async def start() -> int:
            environment = dict(await self._starts.before_start(name))
            answer = await call(
                self._layout.socket("fork-server"), "start", name=name, port=port, environment=environment
            )
            pid = int(answer["pid"])
            # The replica leads a group of its own, which must not outlive the supervisor.
            self._group.adopt(pid)
            return pid

        return ProcessSupervisor(
            name,
            start=start,
            answers=lambda: http_ok(f"{self._layout.url(name)}/ping"),
            ended=self._group.disown,
            changed=changed,
            port=port,
        )

"""Conditions on the next start of a replica: a delay, as after a lost machine, or a changed environment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monkeyproof.errors import TargetError
from monkeyproof.targets.port import StartCondition


@dataclass(eq=False)
class _ConditionInForce:
    """A condition in force, for one replica."""

    condition: StartCondition
    lease_s: float | None
    due_s: float
    """When the lease expires, in monotonic seconds; infinity without one."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    starts_s: float | None = None
    """When the delayed start will be, in monotonic seconds. None: the old process has not ended."""


class StartConditions:
    """Holds at most one condition for each replica, and ends it when its lease expires."""

    def __init__(self, on_expired: Callable[[str, StartCondition], Awaitable[None]]) -> None:
        """``on_expired`` is called with the replica and its condition when a lease expires."""
        self._on_expired = on_expired
        self._in_force: dict[str, _ConditionInForce] = {}
        self._expired: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def impose(self, name: str, condition: StartCondition, lease_s: float | None) -> None:
        """Apply a condition to the next start of a replica.

        Raises:
            TargetError: another one applies already.
        """
        if name in self._in_force:
            raise TargetError(f"{name}: something is done to its next start already")
        self._expired.pop(name, None)
        entry = self._in_force[name] = _ConditionInForce(
            condition, lease_s, float("inf") if lease_s is None else time.monotonic() + lease_s
        )
        if lease_s is not None:
            task = asyncio.create_task(self._check_lease(name, entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def before_start(self, name: str) -> Mapping[str, str]:
        """Wait as long as the start is delayed; returns what to add to the environment."""
        entry = self._in_force.get(name)
        if entry is None:
            return {}
        if entry.starts_s is None:
            entry.starts_s = time.monotonic() + entry.condition.delay_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(entry.over.wait(), max(0.0, entry.starts_s - time.monotonic()))
        if entry.over.is_set():
            return {}
        if not entry.condition.environment:
            self.release(name)
        return entry.condition.environment

    def release(self, name: str) -> StartCondition | None:
        """End a condition; returns it, or None if there was none."""
        entry = self._in_force.pop(name, None)
        if entry is None:
            return None
        entry.over.set()
        return entry.condition

    def renew(self, names: Sequence[str]) -> dict[str, str]:
        """Renew leases; returns which expired meanwhile, and why."""
        for name in names:
            if (entry := self._in_force.get(name)) is not None and entry.lease_s is not None:
                entry.due_s = time.monotonic() + entry.lease_s
        return {name: self._expired[name] for name in names if name in self._expired}

    def all(self) -> dict[str, StartCondition]:
        """Conditions in force, by replica, each with the delay that is left."""
        now_s = time.monotonic()
        return {
            name: StartCondition(
                entry.condition.delay_s if entry.starts_s is None else max(0.0, entry.starts_s - now_s),
                entry.condition.environment,
            )
            for name, entry in self._in_force.items()
        }

    async def _check_lease(self, name: str, entry: _ConditionInForce) -> None:
        while (left_s := entry.due_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.over.wait(), left_s)
            if entry.over.is_set():
                return
        self.release(name)
        self._expired[name] = f"the start of {name} was held, and that not renewed for {entry.lease_s:g} s"
        with contextlib.suppress(TargetError):
            await self._on_expired(name, entry.condition)

"""What the next start of a replica meets: a delay, as of a machine that has to be found, or an environment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monkeyproof.errors import TargetError
from monkeyproof.targets.port import StartCondition


@dataclass(eq=False)
class _Held:
    """A condition in force, for one replica."""

    condition: StartCondition
    lease_s: float | None
    due_s: float
    """When the lease runs out; never without one."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    starts_s: float | None = None
    """When the delayed start will be. None: the replica has not come that far."""


class StartConditions:
    """At most one for each replica. Each is a lease: what is not renewed is taken back here."""

    def __init__(self, taken_back: Callable[[str, StartCondition], Awaitable[None]]) -> None:
        """``taken_back`` is told when a lease ran out."""
        self._taken_back = taken_back
        self._held: dict[str, _Held] = {}
        self._ran_out: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, name: str, condition: StartCondition, lease_s: float | None) -> None:
        """From here on, a start of that replica meets the condition.

        Raises:
            TargetError: it meets one already.
        """
        if name in self._held:
            raise TargetError(f"{name}: something is done to its next start already")
        self._ran_out.pop(name, None)
        held = self._held[name] = _Held(
            condition, lease_s, float("inf") if lease_s is None else time.monotonic() + lease_s
        )
        if lease_s is not None:
            task = asyncio.create_task(self._look_at_lease(name, held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def before_start(self, name: str) -> Mapping[str, str]:
        """Wait as long as the start is delayed; returns what is added to the environment."""
        held = self._held.get(name)
        if held is None:
            return {}
        if held.starts_s is None:
            held.starts_s = time.monotonic() + held.condition.delay_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.over.wait(), max(0.0, held.starts_s - time.monotonic()))
        if held.over.is_set():
            return {}
        if not held.condition.environment:
            self.release(name)
        return held.condition.environment

    def release(self, name: str) -> StartCondition | None:
        """Take it back; what it was, None if there was none."""
        held = self._held.pop(name, None)
        if held is None:
            return None
        held.over.set()
        return held.condition

    def renew(self, names: Sequence[str]) -> dict[str, str]:
        """Begin leases anew; returns which ran out meanwhile, and why."""
        for name in names:
            if (held := self._held.get(name)) is not None and held.lease_s is not None:
                held.due_s = time.monotonic() + held.lease_s
        return {name: self._ran_out[name] for name in names if name in self._ran_out}

    def all(self) -> dict[str, StartCondition]:
        """Those in force, each with the delay that is left."""
        now_s = time.monotonic()
        return {
            name: StartCondition(
                held.condition.delay_s if held.starts_s is None else max(0.0, held.starts_s - now_s),
                held.condition.environment,
            )
            for name, held in self._held.items()
        }

    async def _look_at_lease(self, name: str, held: _Held) -> None:
        while (left_s := held.due_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.over.wait(), left_s)
            if held.over.is_set():
                return
        self.release(name)
        self._ran_out[name] = f"the start of {name} was held, and that not renewed for {held.lease_s:g} s"
        with contextlib.suppress(TargetError):
            await self._taken_back(name, held.condition)

"""The toxic that blocks one direction of connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from monkeyproof.faults.proxy.hooks import CONNECTION, ConnectionPipes, ShareOfConnections
from monkeyproof.faults.proxy.toxic import ActiveToxic, LinkView
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("partition", hook=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Partition(ShareOfConnections):
    """Let nothing of one direction pass, while the other flows. What waits is not lost."""

    def strike(self, active: ActiveToxic, pipes: ConnectionPipes, number: int) -> None:  # noqa: ARG002
        pipes.block(active, self.direction)

    def placed(self, active: ActiveToxic, link: LinkView) -> None:
        active.sample = partial(_blocked, active, link)


def _blocked(active: ActiveToxic, link: LinkView) -> Mapping[str, float]:
    """What waits because of the partition, and would not wait for a link that hangs anyway."""
    relays = () if link.hung else link.relays
    waiting = [found for relay in relays if (found := relay.blocked_bytes(active)) is not None]
    return {
        "affected": sum(one > 0 for one in waiting),
        "waiting_bytes": sum(waiting),
        "connections": len(waiting),
    }

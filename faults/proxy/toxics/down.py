"""The toxic that takes a link down."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.faults.proxy.hooks import LINK, LinkToxic
from monkeyproof.faults.proxy.toxic import ActiveToxic, LinkView
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("down", hook=LINK)
@dataclass(frozen=True, kw_only=True)
class Down(LinkToxic):
    """Reset every connection. New ones are accepted and reset (``reset``) or refused by the kernel
    (``refuse-like``)."""

    mode: str = "reset"

    def __post_init__(self) -> None:
        self.check(self.mode in ("reset", "refuse-like"), "mode is 'reset' or 'refuse-like'")

    @property
    def resets(self) -> bool:
        return True

    @property
    def refuses(self) -> bool:
        return self.mode == "refuse-like"

    def placed(self, active: ActiveToxic, link: LinkView) -> None:
        active.affected += len(link.relays)
        active.count("live_connections", len(link.relays))
        active.count("new_connections", 0)
        for relay in list(link.relays):
            relay.reset()

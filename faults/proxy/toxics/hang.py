"""The toxic that makes a link hang."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from monkeyproof.faults.proxy.hooks import LINK, LinkToxic
from monkeyproof.faults.proxy.toxic import ActiveToxic, LinkView
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("hang", hook=LINK)
@dataclass(frozen=True, kw_only=True)
class Hang(LinkToxic):
    """Accept connections, but neither read nor answer."""

    @property
    def hangs(self) -> bool:
        return True

    def placed(self, active: ActiveToxic, link: LinkView) -> None:
        active.sample = partial(_waiting, active, link)


def _waiting(active: ActiveToxic, link: LinkView) -> Mapping[str, float]:
    """What waits because of this toxic alone: of several that hang a link, because of the oldest."""
    first = next((one for one, toxic in link.at(LINK) if toxic.hangs), None)
    waiting = [relay.hung_bytes() for relay in link.relays] if active is first else []
    return {
        "affected": sum(one > 0 for one in waiting),
        "waiting_bytes": sum(waiting),
        "connections": len(waiting),
    }

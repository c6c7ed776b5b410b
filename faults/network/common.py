"""What faults of the network have in common: their undo, proof that they hit somebody, and a limit on holding."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from monkeyproof.errors import TargetError
from monkeyproof.faults.support.links import send_own_request
from monkeyproof.injection.active import bound_s
from monkeyproof.injection.inject import current, within_limit
from monkeyproof.targets.port import Links, Target, require
from monkeyproof.types import Evidence, Json

UNDO = "taken off the link, what it held flows on; by itself when the lease runs out"
UNDO_WITH_RESET = "taken off the link, connections that lost bytes are reset; by itself when the lease runs out"


def remove_toxic(target: Target, link: str, toxic_id: str) -> str:
    """Undo of every fault on a link. Idempotent; the id is this fault's alone, so that it takes off no other."""
    links = require(target, Links)
    removed = links.remove(toxic_id)
    if toxic_id in links.active():
        raise TargetError(f"{link}: the fault proxy still has {toxic_id}; end the proxy if it stays")
    return f"{link}: fault removed" if removed else f"{link}: the fault was gone already"


def within_hold_limit(link: str) -> None:
    """Hold a fault that can keep a request for as long as it is in force against the target's ``latency_ms``.

    Raises:
        Refusal: that is longer than the target allows.
    """
    context = current()
    held_ms = 1000 * bound_s(context.target.file.windows, context.active_faults.hold_at_most_s)
    within_limit("latency_ms", held_ms, f"what {link} may hold a request for", adds_up=True)


def struck(
    link: str,
    look: Callable[[Mapping[str, Json]], Evidence | None],
    *,
    quiet_s: float = 1.0,
    own_timeout_s: float = 1.0,
) -> Callable[[str], Evidence | None]:
    """Evidence of a fault that has to hit somebody: ``look`` finds it in what the proxy counted.

    On an HTTP link that nobody uses for ``quiet_s``, requests of our own are sent, so that somebody is hit.
    """
    context = current()
    links = require(context.target, Links)
    asks = context.target.file.links[link].protocol == "http"
    quiet_until_s = math.inf
    seen = 0.0
    asked = 0

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal quiet_until_s, seen, asked
        stats = links.stats(toxic_id)
        if (found := look(stats)) is not None:
            return found
        now_s = time.monotonic()
        # A toxic on connections counts ours among the others; one on requests counts them apart.
        theirs = stats["seen"] - (0 if stats["own_seen"] else asked)
        if theirs > seen or quiet_until_s == math.inf:
            seen, quiet_until_s = theirs, now_s + quiet_s
        elif asks and now_s > quiet_until_s:
            asked += 1
            send_own_request(context.target, link, timeout_s=own_timeout_s)
        return None

    return evidence

"""What network faults have in common: their undo, evidence that they hit traffic, and a limit on holding."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from monkeyproof.errors import TargetError
from monkeyproof.faults.proxy.hooks import ShareOfMessages
from monkeyproof.faults.support.checks import check_link_share, check_number
from monkeyproof.faults.support.links import check_link, proxy_fault, seed_for, send_own_request
from monkeyproof.injection.active import bound_s
from monkeyproof.injection.inject import current, inject, within_limit
from monkeyproof.targets.port import Links, Target, require
from monkeyproof.types import Evidence, Json

UNDO = "the proxy removes the fault, what it held flows on; by itself when the lease runs out"
UNDO_WITH_RESET = (
    "the proxy removes the fault, connections that lost bytes are reset; by itself when the lease runs out"
)


def remove_toxic(target: Target, link: str, toxic_id: str) -> str:
    """Undo of every fault on a link. Idempotent; the id is this fault's alone, so that it takes off no other."""
    links = require(target, Links)
    removed = links.remove(toxic_id)
    if toxic_id in links.active():
        raise TargetError(f"{link}: the fault proxy still has {toxic_id}; end the proxy if it stays")
    return f"{link}: fault removed" if removed else f"{link}: the fault had ended already"


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
    find_effect: Callable[[Mapping[str, Json]], Evidence | None],
    *,
    quiet_s: float = 1.0,
    own_timeout_s: float = 1.0,
) -> Callable[[str], Evidence | None]:
    """Evidence of a fault that has to hit traffic: ``find_effect`` finds it in what the proxy counted.

    On an HTTP link without traffic for ``quiet_s``, requests of our own are sent, for the fault to hit.
    """
    context = current()
    links = require(context.target, Links)
    is_http = context.target.file.links[link].protocol == "http"
    quiet_until_s = math.inf
    seen = 0.0
    own_requests = 0

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal quiet_until_s, seen, own_requests
        stats = links.stats(toxic_id)
        if (found := find_effect(stats)) is not None:
            return found
        now_s = time.monotonic()
        # A toxic on connections counts ours among the others; one on requests counts them apart.
        user_requests = stats["seen"] - (0 if stats["own_seen"] else own_requests)
        if user_requests > seen or quiet_until_s == math.inf:
            seen, quiet_until_s = user_requests, now_s + quiet_s
        elif is_http and now_s > quiet_until_s:
            own_requests += 1
            send_own_request(context.target, link, timeout_s=own_timeout_s)
        return None

    return evidence


def inject_on_messages(
    name: str, link: str, toxic: type[ShareOfMessages], share: float, hits: str, **parameters: Json
) -> dict[str, Json]:
    """Inject the fault ``network.NAME``: a toxic that hits a ``share`` of the messages of an HTTP link.

    Args:
        hits: what it makes of the messages that it hits, for the evidence: "responses cut off".
        parameters: the toxic's, beside its share and seed.

    Raises:
        UsageError: the parameters are wrong, or there is no such link.
        Refusal: the link does not speak HTTP.
        Unproven: no message was hit in time.
    """
    check_number("share", share)
    toxic(seed=0, share=share, **parameters)  # Checks them.
    check_link_share("share", share)
    check_link(current().target, link, protocol="http")

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        for prefix, whose in (("", "users'"), ("own_", "our own")):
            if stats[f"{prefix}affected"]:
                return Evidence(
                    f"{link}: {stats[f'{prefix}affected']} of {stats[f'{prefix}seen']} {hits} ({whose})",
                    {"messages": stats[f"{prefix}seen"], "hit": stats[f"{prefix}affected"], "whose": whose},
                )
        return None

    seeded = {**parameters, "share": float(share), "seed": seed_for(f"network.{name}/{link}")}
    links = require(current().target, Links)
    evidence = struck(link, find_effect)
    within_s = min(60.0, 5 / share)
    return inject(proxy_fault(f"network.{name}", link, toxic.kind, seeded, links, evidence, within_s=within_s))

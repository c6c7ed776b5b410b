"""Faults of the links to a feature store: an outage, delays."""

from __future__ import annotations

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.features.read_paths import LINK, check_leads_to_store, where_features_are_read
from monkeyproof.faults.network.breaks import block_link
from monkeyproof.faults.support.checks import check_link_share, check_number
from monkeyproof.faults.support.links import check_link, proxy_fault, seed_for
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject, within_limit
from monkeyproof.targets.port import Links, require
from monkeyproof.types import Evidence, Json


@fault(
    needs=(Links,),
    evidence="the proxy breaks off a connection of our own, and at least one of the replicas'",
    undo="the proxy opens the link again; by itself when the lease runs out",
    healing="serve the last good snapshot",
    draw=lambda rng, target, intensity: {} if LINK in target.links else None,  # noqa: ARG005
)
def outage(
    link: str = LINK,
    mode: str = "reset",
) -> dict[str, Json]:
    """Cut the replicas off from the feature store: connections are reset (or refused: ``refuse-like``).

    A broken connection of our own and at least one of the replicas' prove it.
    """
    check_leads_to_store(link)
    return block_link("features.outage", link, mode, others_needed=True)


@fault(
    needs=(Links,),
    evidence="a user's request to the store was held that long and then forwarded",
    undo="the proxy removes the fault and forwards what it held; by itself when the lease runs out",
    healing="a time-out, then serve the last good snapshot",
    draw=lambda rng, target, intensity: where_features_are_read(
        rng, target, low_ms=round(150 * intensity, 1), high_ms=round(400 * intensity, 1)
    ),
)
def slow(
    link: str = LINK,
    low_ms: float = 150.0,
    high_ms: float = 400.0,
    share: float = 1.0,
) -> dict[str, Json]:
    """Hold a ``share`` of the requests to the feature store, each once, for a time from ``[low_ms, high_ms]``.

    A request is a command of Redis or a request of HTTP, however many packets it comes in. On a link of plain TCP
    requests cannot be distinguished: refused. Proven by a request of the store's users that was held for at least
    ``low_ms`` and then forwarded; also if its sender no longer waits for the answer.
    """
    context = current()
    for name, value in (("low_ms", low_ms), ("high_ms", high_ms), ("share", share)):
        check_number(name, value)
    if not 0 <= low_ms <= high_ms or high_ms == 0:
        raise UsageError(f"low_ms, high_ms: {low_ms} and {high_ms} are not 0 <= low_ms <= high_ms, high_ms > 0")
    check_link_share("share", share)
    check_leads_to_store(link)
    if check_link(context.target, link) == "tcp":
        raise Refusal(
            f"{link} is a tcp link, on which requests cannot be distinguished",
            "say protocol: redis (or http) in the target file if it speaks that, or use network.add_latency",
        )
    within_limit("latency_ms", high_ms, f"the delay on {link}", adds_up=True)
    links = require(context.target, Links)

    def evidence(toxic_id: str) -> Evidence | None:
        stats = links.stats(toxic_id)
        held, least_ms = stats["affected"], stats.get("delay_min_ms", 0.0)
        if not held or least_ms < low_ms:
            return None
        return Evidence(
            f"{link}: {held} of the store's {stats['seen']} requests held for at least {least_ms:.0f} ms, "
            "then forwarded",
            {"requests": stats["seen"], "held": held, "delay_min_ms": least_ms},
        )

    parameters = {
        "low_ms": float(low_ms),
        "high_ms": float(high_ms),
        "share": float(share),
        "seed": seed_for(f"features.slow/{link}"),
    }
    within_s = 5 + 3 * (1.0 + high_ms / 1000) / share
    return inject(proxy_fault("features.slow", link, "latency", parameters, links, evidence, within_s=within_s))

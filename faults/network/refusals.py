"""Faults in which the link refuses requests in the server's place."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from monkeyproof.errors import UsageError
from monkeyproof.faults.network.common import UNDO, struck
from monkeyproof.faults.proxy.toxics.rate_limit import RateLimit
from monkeyproof.faults.support.checks import check_at_least_zero, check_link_share, check_number
from monkeyproof.faults.support.links import check_link, on_a_link, proxy_fault, seed_for, send_own_request
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject
from monkeyproof.targets.port import Links, require
from monkeyproof.types import Evidence, Json

_ROUNDS_S = 0.2


@fault(
    needs=(Links,),
    evidence="requests of our own are answered so by the proxy",
    undo=UNDO,
    healing="retry with backoff; go elsewhere",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="http", probability=round(0.6 * intensity, 3), status=503
    ),
)
def fail_requests(
    link: str,
    probability: float,
    status: int = 503,
    retry_after_s: float = 0.0,
) -> dict[str, Json]:
    """Have the link answer a share of the requests with ``status``, without asking the server.

    With ``retry_after_s`` above 0 the answer has a header ``Retry-After``, which means something in 429 and 503.
    Proven by harmless requests of our own (``GET /health``), sent until one is answered so.
    """
    return failing_link("network.fail_requests", link, probability, status, retry_after_s)


def failing_link(
    name: str, link: str, probability: float, status: int, retry_after_s: float = 0.0
) -> dict[str, Json]:
    """Inject a link that answers requests with failures, as the fault ``name``."""
    context = current()
    check_link_share("probability", probability)
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        raise UsageError(f"status: {status!r} is not a failure of HTTP (400 to 599)")
    check_number("retry_after_s", retry_after_s)
    if not 0 <= retry_after_s <= 86_400:
        raise UsageError(f"retry_after_s: {retry_after_s} is not in 0..86400")
    check_link(context.target, link, protocol="http")
    links = require(context.target, Links)
    # So many that all of them get through once in a billion trials.
    tries_left = 60 if probability == 1 else min(2000, max(60, math.ceil(-20.7 / math.log1p(-probability))))

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal tries_left
        round_ends_s = time.monotonic() + _ROUNDS_S
        while tries_left > 0 and time.monotonic() < round_ends_s:
            tries_left -= 1
            if send_own_request(context.target, link, timeout_s=2.0) == (status, toxic_id):
                stats = links.stats(toxic_id)
                sent, failed = stats["own_seen"], stats["own_affected"]
                return Evidence(
                    f"{link}: {failed} of our own {sent} requests answered {status} by the fault proxy; "
                    f"users' so far: {stats['affected']} of {stats['seen']}",
                    {
                        "own_requests": sent,
                        "own_failed": failed,
                        "requests": stats["seen"],
                        "failed": stats["affected"],
                    },
                )
        return None

    parameters = {
        "probability": float(probability),
        "status": status,
        "seed": seed_for(f"{name}/{link}"),
        **({"retry_after_s": float(retry_after_s)} if retry_after_s else {}),
    }
    return inject(proxy_fault(name, link, "http_error", parameters, links, evidence, within_s=10))


@fault(
    needs=(Links,),
    evidence="requests beyond the rate were answered 429 by the proxy",
    undo=UNDO,
    healing="ask less, after Retry-After; go elsewhere",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="http", limit_per_s=round(100 * (1.05 - intensity), 1)
    ),
)
def limit_rate(
    link: str,
    limit_per_s: float,
    burst: int = 1,
    retry_after_s: float = 1.0,
) -> dict[str, Json]:
    """Let at most ``limit_per_s`` requests a second pass, and answer the others 429 with ``Retry-After``.

    A bucket of ``burst`` tokens fills up at that rate, and each request that passes takes one. Which are refused
    depends on when they come, so it is the one fault here that a seed does not repeat. For 429 by chance see
    ``fail_requests``. Proven by requests answered so: users', or ours where there is no traffic.
    """
    context = current()
    check_number("limit_per_s", limit_per_s)
    check_at_least_zero("burst", burst)
    check_number("retry_after_s", retry_after_s)
    parameters = {"limit_per_s": float(limit_per_s), "burst": burst, "retry_after_s": float(retry_after_s)}
    RateLimit(**parameters)  # type: ignore[arg-type]  # Checks them.
    check_link(context.target, link, protocol="http")
    links = require(context.target, Links)

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        for prefix, whose in (("", "users'"), ("own_", "our own")):
            if stats[f"{prefix}affected"]:
                return Evidence(
                    f"{link}: {stats[f'{prefix}affected']} of {whose} {stats[f'{prefix}seen']} requests "
                    "were answered "
                    "429 by the fault proxy",
                    {"requests": stats[f"{prefix}seen"], "refused": stats[f"{prefix}affected"], "whose": whose},
                )
        return None

    evidence = struck(link, find_effect)
    return inject(proxy_fault("network.limit_rate", link, "rate_limit", parameters, links, evidence, within_s=10))

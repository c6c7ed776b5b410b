"""Network faults: what a link can do to the requests that pass it. All of them sit on the fault proxy."""

from __future__ import annotations

import math
import time

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.faults.proxied import (
    broken_how,
    check_link,
    check_number,
    check_share,
    listen_address,
    on_a_link,
    proxy_fault,
    seed_for,
    send_own_request,
)
from monkeyproof.in_force import bound_s
from monkeyproof.injection import current, inject, within_limit
from monkeyproof.repertoire import fault
from monkeyproof.targets.port import Links, Target, require
from monkeyproof.types import Evidence, Json

__all__ = ["add_latency", "block", "fail_requests", "hang", "remove_toxic"]

_ROUNDS_S = 0.2


@fault(
    needs=(Links,),
    evidence="a request was held that long and then forwarded",
    undo="taken off the link, what it held flows on; by itself when the lease runs out",
    healing="drain the slow path",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, low_ms=round(200 * intensity, 1), high_ms=round(2000 * intensity, 1)
    ),
)
def add_latency(
    link: str,
    low_ms: float,
    high_ms: float,
    share: float = 1.0,
) -> dict[str, Json]:
    """Hold a ``share`` of the requests on ``link``, each for a time drawn from ``[low_ms, high_ms]``.

    On a TCP link chunks are held instead of requests. Proven by a request that was held for at least ``low_ms``
    and then forwarded: a user's, or (on HTTP links that nobody uses meanwhile) one of our own.
    """
    return slow_link("network.add_latency", link, low_ms, high_ms, share)


def slow_link(name: str, link: str, low_ms: float, high_ms: float, share: float) -> dict[str, Json]:
    """Inject a link that holds requests, as the fault ``name``."""
    context = current()
    for what, value in (("low_ms", low_ms), ("high_ms", high_ms), ("share", share)):
        check_number(what, value)
    if not 0 <= low_ms <= high_ms or high_ms == 0:
        raise UsageError(f"low_ms, high_ms: {low_ms} and {high_ms} are not 0 <= low_ms <= high_ms, high_ms > 0")
    check_share("share", share)
    protocol = check_link(context.target, link)
    within_limit("latency_ms", high_ms, f"the delay on {link}", adds_up=True)
    links = require(context.target, Links)
    patience_s = 1.0 + high_ms / 1000
    quiet_until_s = math.inf

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal quiet_until_s
        stats = links.stats(toxic_id)
        for who, whose in (("", "users'"), ("own_", "our own")):
            held, least_ms = stats[f"{who}affected"], stats.get(f"{who}delay_min_ms", 0.0)
            if held and least_ms >= low_ms:
                return Evidence(
                    f"{link}: {held} of {whose} requests held for at least {least_ms:.0f} ms, then forwarded",
                    {"requests": held, "delay_min_ms": least_ms, "whose": whose},
                )
        if quiet_until_s == math.inf:
            quiet_until_s = time.monotonic() + patience_s
        elif protocol == "http" and not stats["seen"] and time.monotonic() > quiet_until_s:
            send_own_request(context.target, link, timeout_s=patience_s)
        return None

    parameters = {
        "low_ms": float(low_ms),
        "high_ms": float(high_ms),
        "share": float(share),
        "seed": seed_for(f"network.add_latency/{link}"),
    }
    return inject(
        proxy_fault(
            name,
            link,
            "latency",
            parameters,
            links,
            evidence,
            within_s=5 + 3 * patience_s / share,
        )
    )


@fault(
    needs=(Links,),
    evidence="requests of our own are answered so by the proxy",
    undo="taken off the link, what it held flows on; by itself when the lease runs out",
    healing="retry with backoff; go elsewhere",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="http", probability=round(0.6 * intensity, 3), status=503
    ),
)
def fail_requests(
    link: str,
    probability: float,
    status: int = 503,
) -> dict[str, Json]:
    """Have the link answer a share of the requests with ``status``, without asking the server.

    Proven by harmless requests of our own (``GET /health``), sent until one is answered so.
    """
    return failing_link("network.fail_requests", link, probability, status)


def failing_link(name: str, link: str, probability: float, status: int) -> dict[str, Json]:
    """Inject a link that answers requests with failures, as the fault ``name``."""
    context = current()
    check_number("probability", probability)
    check_share("probability", probability)
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        raise UsageError(f"status: {status!r} is not a failure of HTTP (400 to 599)")
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
        "seed": seed_for(f"network.failing/{link}"),
    }
    return inject(proxy_fault(name, link, "http_error", parameters, links, evidence, within_s=10))


@fault(
    needs=(Links,),
    evidence="a connection of our own is broken off",
    undo="taken off the link, what it held flows on; by itself when the lease runs out",
    healing="whatever does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(  # noqa: ARG005
        rng, target, protocol="tcp", mode="reset"
    ),
)
def block(
    link: str,
    mode: str = "reset",
) -> dict[str, Json]:
    """Reset every connection on the link; new ones are accepted and reset (or refused: ``refuse-like``).

    Proven by a connection of our own that is broken off.
    """
    return block_link("network.block", link, mode, others_needed=False)


@fault(
    needs=(Links,),
    evidence="bytes that somebody sent stay unread",
    undo="taken off the link, what it held flows on; by itself when the lease runs out",
    healing="a timeout, then whatever does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(  # noqa: ARG005
        rng, target, protocol="tcp"
    ),
)
def hang(
    link: str,
) -> dict[str, Json]:
    """Have the link accept connections, and neither read nor answer. What it holds flows on at the revert.

    Proven by bytes that somebody sent and that stay unread; on HTTP links a request of our own is such.
    """
    context = current()
    protocol = check_link(context.target, link)
    # A request is held for as long as the fault is in force.
    held_ms = 1000 * bound_s(context.target.file.windows, context.in_force.hold_at_most_s)
    within_limit("latency_ms", held_ms, f"what {link} may hold a request for", adds_up=True)
    links = require(context.target, Links)
    asked = False

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal asked
        if protocol == "http" and not asked:
            asked = True
            # Kept open by nobody: the bytes stay with the proxy until it reads again.
            if send_own_request(context.target, link, timeout_s=0.25) is not None:
                asked = False
                return None
        stats = links.stats(toxic_id)
        if not stats["waiting_bytes"]:
            return None
        return Evidence(
            f"{link}: {stats['waiting_bytes']} bytes on {stats['affected']} connections wait unread",
            {"waiting_bytes": stats["waiting_bytes"], "connections": stats["affected"]},
        )

    return inject(proxy_fault("network.hang", link, "hang", {}, links, evidence, within_s=5))


def remove_toxic(target: Target, link: str, toxic_id: str) -> str:
    """Undo of every fault on a link. Idempotent; the id is this fault's alone, so that it takes off no other."""
    links = require(target, Links)
    removed = links.remove(toxic_id)
    if toxic_id in links.active():
        raise TargetError(f"{link}: the fault proxy still has {toxic_id}; end the proxy if it stays")
    return f"{link}: fault removed" if removed else f"{link}: the fault was gone already"


def block_link(name: str, link: str, mode: str, *, others_needed: bool) -> dict[str, Json]:
    """Inject a link that is down. ``others_needed``: the proof asks for users' connections that it broke, too."""
    context = current()
    if mode not in ("reset", "refuse-like"):
        raise UsageError(f"mode: {mode!r} is not 'reset' or 'refuse-like'")
    check_link(context.target, link)
    links = require(context.target, Links)
    address = listen_address(context.target, link)
    own_accepted = 0

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal own_accepted
        how = broken_how(address)
        if how is None:
            return None
        own_accepted += how == "reset"
        others = links.stats(toxic_id)["affected"] - own_accepted
        if others_needed and others <= 0:
            return None
        return Evidence(
            f"{link}: our own connection was {how}, and {others} of others",
            {"own": how, "connections": others},
        )

    return inject(proxy_fault(name, link, "down", {"mode": mode}, links, evidence, within_s=5))

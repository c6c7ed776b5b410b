"""Faults that make a link slow: held requests and responses, paced bytes, late ends."""

from __future__ import annotations

from collections.abc import Mapping

from monkeyproof.errors import UsageError
from monkeyproof.faults.network.common import UNDO, struck, within_hold_limit
from monkeyproof.faults.proxy.hooks import DIRECTIONS
from monkeyproof.faults.proxy.toxics.bandwidth import Bandwidth
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.slow_close import SlowClose
from monkeyproof.faults.support.checks import check_link_share, check_number, check_one_of
from monkeyproof.faults.support.links import check_link, on_a_link, proxy_fault, seed_for
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject, within_limit
from monkeyproof.targets.port import Links, require
from monkeyproof.types import Evidence, Json


@fault(
    needs=(Links,),
    evidence="a request was held that long and then forwarded",
    undo=UNDO,
    healing="drain the slow path",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, low_ms=round(200 * intensity, 1), high_ms=round(2000 * intensity, 1)
    ),
)
def add_latency(
    link: str,
    low_ms: float = 0.0,
    high_ms: float = 0.0,
    share: float = 1.0,
    direction: str = "request",
    distribution: str = "uniform",
    mean_ms: float = 0.0,
    jitter_ms: float = 0.0,
    tail: float = 1.5,
) -> dict[str, Json]:
    """Hold a ``share`` of the requests (or responses: ``direction``) on ``link``, each once, for a drawn time.

    ``distribution``: "uniform" on ``[low_ms, high_ms]``; "constant" at ``mean_ms``; "normal" and "lognormal" with
    the mean ``mean_ms`` and the standard deviation ``jitter_ms``; "pareto" with the mean ``mean_ms`` and the
    exponent ``tail`` (above 1; the closer to 1, the heavier the tail). ``high_ms`` is a hard cap on all of them,
    ``low_ms`` a floor, and the means are those before the cap.

    One delay a request, whatever packets it comes in; on a TCP link chunks of that direction are held instead.
    Proven by a request (or response) that was held for at least ``low_ms`` and then forwarded: a user's, or (on
    HTTP links without traffic) one of our own.
    """
    shape = (direction, distribution, mean_ms, jitter_ms, tail)
    return slow_link("network.add_latency", link, low_ms, high_ms, share, *shape)


def slow_link(
    name: str,
    link: str,
    low_ms: float,
    high_ms: float,
    share: float,
    direction: str = "request",
    distribution: str = "uniform",
    mean_ms: float = 0.0,
    jitter_ms: float = 0.0,
    tail: float = 1.5,
) -> dict[str, Json]:
    """Inject a link that holds requests or responses, as the fault ``name``."""
    context = current()
    numbers = {"low_ms": low_ms, "high_ms": high_ms, "share": share, "mean_ms": mean_ms, "jitter_ms": jitter_ms}
    for what, value in (*numbers.items(), ("tail", tail)):
        check_number(what, value)
    if distribution == "constant" and not high_ms:
        high_ms = mean_ms
    if not 0 <= low_ms <= high_ms or high_ms == 0:
        raise UsageError(f"low_ms, high_ms: {low_ms} and {high_ms} are not 0 <= low_ms <= high_ms, high_ms > 0")
    check_link_share("share", share)
    check_one_of("direction", direction, DIRECTIONS)
    parameters = {
        "low_ms": float(low_ms),
        "high_ms": float(high_ms),
        "share": float(share),
        "direction": direction,
        "distribution": distribution,
        "mean_ms": float(mean_ms),
        "jitter_ms": float(jitter_ms),
        "tail": float(tail),
        "seed": seed_for(f"{name}/{link}"),
    }
    Latency(**parameters)  # type: ignore[arg-type]  # Checks the rest of them.
    check_link(context.target, link)
    within_limit("latency_ms", high_ms, f"the delay on {link}", adds_up=True)
    patience_s = 1.0 + high_ms / 1000
    held_are = {"request": "requests", "response": "responses"}[direction]
    data_key = {"request": "requests", "response": "answers"}[direction]  # What readers of histories know.

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        for prefix, whose in (("", "users'"), ("own_", "our own")):
            held, least_ms = stats[f"{prefix}affected"], stats.get(f"{prefix}delay_min_ms", 0.0)
            if held and least_ms >= low_ms:
                return Evidence(
                    f"{link}: {held} of {whose} {held_are} held for at least {least_ms:.0f} ms, then forwarded",
                    {data_key: held, "delay_min_ms": least_ms, "whose": whose},
                )
        return None

    evidence = struck(link, find_effect, quiet_s=patience_s, own_timeout_s=patience_s)
    links = require(context.target, Links)
    within_s = 5 + 3 * patience_s / share
    return inject(proxy_fault(name, link, "latency", parameters, links, evidence, within_s=within_s))


@fault(
    needs=(Links,),
    evidence="bytes had to wait, and then passed",
    undo=UNDO,
    healing="drain the slow path; a fallback that does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, kib_per_s=round(64 * (1.05 - intensity), 1), direction="response"
    ),
)
def limit_bandwidth(
    link: str,
    kib_per_s: float,
    direction: str = "response",
    per: str = "link",
    share: float = 1.0,
) -> dict[str, Json]:
    """Let at most ``kib_per_s`` KiB a second of one ``direction`` pass, over a ``share`` of the connections.

    ``per`` "link": all of those share that rate, and take turns; "connection": each has it for itself. Senders are
    slowed down, nothing is lost. Proven by bytes that had to wait and passed then.
    """
    context = current()
    check_number("kib_per_s", kib_per_s)
    check_number("share", share)
    parameters = {
        "kib_per_s": float(kib_per_s),
        "direction": direction,
        "per": per,
        "share": float(share),
        "seed": seed_for(f"network.limit_bandwidth/{link}"),
    }
    Bandwidth(**parameters)  # type: ignore[arg-type]  # Checks them.
    check_link_share("share", share)
    check_link(context.target, link)
    within_hold_limit(link)

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        waited_ms = stats.get("waited_ms_total", 0.0)
        if not waited_ms:
            return None
        return Evidence(
            f"{link}: {stats['affected']} connections had to wait for {waited_ms:.0f} ms in all, while "
            f"{stats['paced_bytes']} bytes passed",
            {key: stats[key] for key in ("affected", "waited_ms_total", "paced_bytes")},
        )

    links = require(context.target, Links)
    evidence = struck(link, find_effect, own_timeout_s=3.0)
    within_s = min(60.0, 5 / share)
    return inject(
        proxy_fault("network.limit_bandwidth", link, "bandwidth", parameters, links, evidence, within_s=within_s)
    )


@fault(
    needs=(Links,),
    evidence="an end was held that long and then passed on",
    undo=UNDO,
    healing="none is needed where messages have a length; connections pile up meanwhile",
    draw=lambda rng, target, intensity: on_a_link(rng, target, delay_ms=round(2000 * intensity, 1)),
)
def delay_closes(
    link: str,
    delay_ms: float,
    direction: str = "response",
    share: float = 1.0,
) -> dict[str, Json]:
    """Pass the end of one ``direction`` on ``delay_ms`` late, on a ``share`` of the connections.

    "response": the client learns late that the server has closed. Bytes before the end are not delayed. A
    connection that breaks off (a reset) is not an end, and is passed on at once. Proven by an end that was held.
    """
    context = current()
    check_number("delay_ms", delay_ms)
    check_number("share", share)
    parameters = {
        "delay_ms": float(delay_ms),
        "direction": direction,
        "share": float(share),
        "seed": seed_for(f"network.delay_closes/{link}"),
    }
    SlowClose(**parameters)  # type: ignore[arg-type]  # Checks them.
    check_link_share("share", share)
    check_link(context.target, link)
    within_limit("latency_ms", delay_ms, f"the delay of an end on {link}", adds_up=True)

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        least_ms = stats.get("delay_min_ms", 0.0)
        if not stats["affected"] or least_ms < delay_ms:
            return None
        return Evidence(
            f"{link}: the end of {stats['affected']} connections was held for at least {least_ms:.0f} ms",
            {"ends": stats["affected"], "delay_min_ms": least_ms},
        )

    links = require(context.target, Links)
    evidence = struck(link, find_effect, quiet_s=1.0 + delay_ms / 1000)
    within_s = min(60.0, 5 / share) + 2 * delay_ms / 1000
    return inject(
        proxy_fault("network.delay_closes", link, "slow_close", parameters, links, evidence, within_s=within_s)
    )

"""Faults that break a link, or one direction of it: connections that are reset, hang, or lose what they carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.network.common import UNDO, UNDO_WITH_RESET, struck, within_hold_limit
from monkeyproof.faults.support.checks import check_at_least_zero, check_link_share, check_number, check_one_of
from monkeyproof.faults.support.links import (
    broken_how,
    check_link,
    faults_on,
    listen_address,
    on_a_link,
    proxy_fault,
    seed_for,
    send_own_request,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject
from monkeyproof.targets.port import Links, require
from monkeyproof.types import Evidence, Json

_BROKEN_HOW = {"reset": "reset", "refuse-like": "refused"}
"""How a new connection ends while a link is down, by mode."""


@fault(
    needs=(Links,),
    evidence="a connection of our own is broken off",
    undo=UNDO,
    healing="a fallback that does without that dependency",
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
    evidence="bytes that a client sent stay unread",
    undo=UNDO,
    healing="a timeout, then a fallback that does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(  # noqa: ARG005
        rng, target, protocol="tcp"
    ),
)
def hang(
    link: str,
) -> dict[str, Json]:
    """Have the link accept connections, and neither read nor answer. What it holds flows on at the revert.

    Proven by bytes that a client sent and that stay unread; on HTTP links a request of our own is enough.
    """
    context = current()
    protocol = check_link(context.target, link)
    within_hold_limit(link)
    links = require(context.target, Links)
    asked = False

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal asked
        if protocol == "http" and not asked:
            asked = True
            # The request times out; its bytes stay with the proxy until it reads again.
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


@fault(
    needs=(Links,),
    evidence="a connection was reset at that point",
    undo=UNDO,
    healing="retry elsewhere; drain the path",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="http", share=round(0.5 * intensity, 3), after_bytes=200
    ),
)
def reset_connections(
    link: str,
    after_bytes: int = 0,
    after_ms: float = 0.0,
    direction: str = "response",
    share: float = 1.0,
) -> dict[str, Json]:
    """Reset a ``share`` of the connections: each when ``after_bytes`` of the ``direction`` have passed.

    With ``after_ms`` above 0, so long after it was opened instead (one that lives already: after the fault began).
    Those bytes arrive before the reset. ``after_bytes`` 0: reset when the first byte of that direction comes.
    Proven by a connection that was reset.
    """
    check_at_least_zero("after_bytes", after_bytes)
    check_number("after_ms", after_ms)
    if not 0 <= after_ms <= 600_000 or (after_ms and after_bytes):
        raise UsageError(f"after_ms: {after_ms} is not in 0..600000, or after_bytes is given as well")
    parameters: dict[str, Json] = {"after_ms": float(after_ms)} if after_ms else {"after_bytes": after_bytes}

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        if not stats["affected"]:
            return None
        return Evidence(
            f"{link}: {stats['affected']} of {stats['seen']} connections were reset",
            {"reset": stats["affected"], "connections": stats["seen"]},
        )

    return _on_connections("reset_connections", link, "reset", direction, share, parameters, find_effect)


@fault(
    former_names=("swallow",),
    needs=(Links,),
    evidence="bytes that were sent have been discarded",
    undo=UNDO_WITH_RESET,
    healing="a timeout, then a fallback that does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(  # noqa: ARG005
        rng, target, protocol="tcp"
    ),
)
def blackhole(
    link: str,
    direction: str = "both",
    share: float = 1.0,
) -> dict[str, Json]:
    """Make the link a black hole for a ``share`` of its connections: what is sent is read, and never arrives.

    Unlike ``hang``, which reads nothing and loses nothing. ``direction`` "request" or "response" discards that
    direction only. A connection that lost bytes is reset at the revert. Proven by bytes that were discarded.
    """
    parameters: dict[str, Json] = {}

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        if not stats.get("swallowed_bytes"):
            return None
        return Evidence(
            f"{link}: {stats['swallowed_bytes']} bytes of {stats['affected']} connections were discarded",
            {"swallowed_bytes": stats["swallowed_bytes"], "connections": stats["affected"]},
        )

    both = ("request", "response", "both")
    return _on_connections(
        "blackhole", link, "blackhole", direction, share, parameters, find_effect, among=both, holds=True
    )


@fault(
    needs=(Links,),
    evidence="bytes of that direction wait, and do not arrive",
    undo=UNDO,
    healing="a timeout, then a fallback that does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(  # noqa: ARG005
        rng, target, protocol="tcp", direction=("request", "response")[int(rng.integers(2))]
    ),
)
def partition(
    link: str,
    direction: str = "response",
    share: float = 1.0,
) -> dict[str, Json]:
    """Partition the link in one ``direction``: with "response", requests arrive, and no response comes back.

    What waits is not lost: it flows on at the revert, as after a real partition that heals. New connections are
    still accepted, since a user-space proxy cannot act on the handshake. Proven by bytes that wait unread.
    """

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        if not stats["waiting_bytes"]:
            return None
        return Evidence(
            f"{link}: {stats['waiting_bytes']} bytes of {stats['affected']} connections wait, and do not arrive",
            {"waiting_bytes": stats["waiting_bytes"], "connections": stats["affected"]},
        )

    return _on_connections("partition", link, "partition", direction, share, {}, find_effect, holds=True)


@fault(
    needs=(Links,),
    evidence="one side was sent the other's end early",
    undo=UNDO_WITH_RESET,
    healing="retry elsewhere; drain the path",
    draw=lambda rng, target, intensity: on_a_link(rng, target, protocol="http", share=round(0.5 * intensity, 3)),
)
def half_close(
    link: str,
    direction: str = "response",
    after_bytes: int = 0,
    share: float = 1.0,
) -> dict[str, Json]:
    """Close one ``direction`` of a ``share`` of the connections early: when ``after_bytes`` of it have passed.

    The receiver sees an orderly end; the sender sees nothing, and the proxy discards what it sends from there on.
    The other direction stays open. Proven by an end that was sent early.
    """
    check_at_least_zero("after_bytes", after_bytes)

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        if not stats["affected"]:
            return None
        return Evidence(
            f"{link}: the {direction} side of {stats['affected']} of {stats['seen']} connections was ended early",
            {"ended": stats["affected"], "connections": stats["seen"]},
        )

    more = {"after_bytes": after_bytes}
    return _on_connections("half_close", link, "half_close", direction, share, more, find_effect, holds=True)


def _on_connections(
    name: str,
    link: str,
    kind: str,
    direction: str,
    share: float,
    parameters: Mapping[str, Json],
    find_effect: Callable[[Mapping[str, Json]], Evidence | None],
    *,
    among: Sequence[str] = ("request", "response"),
    holds: bool = False,
) -> dict[str, Json]:
    """Inject a toxic that chooses connections. ``holds``: it can hold a request for as long as it is in force."""
    context = current()
    check_one_of("direction", direction, among)
    check_link_share("share", share)
    check_link(context.target, link)
    if holds:
        within_hold_limit(link)
    toxic = {
        "direction": direction,
        "share": float(share),
        "seed": seed_for(f"network.{name}/{link}"),
        **parameters,
    }
    evidence = struck(link, find_effect)
    links = require(context.target, Links)
    within_s = min(60.0, 5 / share)
    return inject(proxy_fault(f"network.{name}", link, kind, toxic, links, evidence, within_s=within_s))


def block_link(name: str, link: str, mode: str, *, others_needed: bool) -> dict[str, Json]:
    """Inject a link that is down. ``others_needed``: the proof asks for users' connections that it broke, too.

    Raises:
        Refusal: another fault has taken it down already, so evidence would prove neither.
    """
    context = current()
    if mode not in _BROKEN_HOW:
        raise UsageError(f"mode: {mode!r} is not 'reset' or 'refuse-like'")
    check_link(context.target, link)
    links = require(context.target, Links)
    if there := [one for one in faults_on(links, link) if links.stats(one)["kind"] == "down"]:
        raise Refusal(
            f"{link} is down already, by {there[0]}; what another block does could not be distinguished from that",
            "revert that fault first, or break another link",
        )
    address = listen_address(context.target, link)
    own_accepted = 0

    def evidence(toxic_id: str) -> Evidence | None:
        nonlocal own_accepted
        how = broken_how(address)
        if how != _BROKEN_HOW[mode]:
            return None
        own_accepted += how == "reset"
        others = links.stats(toxic_id)["affected"] - own_accepted
        if others < 0 or (others_needed and others == 0):
            return None  # Below 0: it was another fault on this link that broke ours off.
        return Evidence(
            f"{link}: our own connection was {how}, and {others} of others",
            {"own": how, "connections": others},
        )

    return inject(proxy_fault(name, link, "down", {"mode": mode}, links, evidence, within_s=5))

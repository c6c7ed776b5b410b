"""Faults of a feature store that answers in time with other values than it holds."""

from __future__ import annotations

import time
from collections.abc import Mapping

from monkeyproof.errors import Unproven, UsageError
from monkeyproof.faults.features.comparison import differing
from monkeyproof.faults.features.read_paths import LINK, where_features_are_read
from monkeyproof.faults.proxy.toxics.partial_answers import HOWS
from monkeyproof.faults.proxy.toxics.schema_mismatch import CHANGES
from monkeyproof.faults.support.checks import check_link_share
from monkeyproof.faults.support.links import check_link, proxy_fault, seed_for
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject, within_limit
from monkeyproof.targets.port import Links, Target, require
from monkeyproof.types import Evidence, Json

EVIDENCE_WITHIN_S = 10.0
_PROOF = "a read through the link differs from the same read past it, bit for bit; a user's read was hit"
_UNDO = "the proxy passes answers unchanged again; by itself when the lease runs out"


@fault(
    needs=(Links,),
    evidence=_PROOF,
    undo=_UNDO,
    healing="none restores what readers get: serve a snapshot, or go past what is stale",
)
def stale_values(
    link: str = LINK,
    share: float = 1.0,
    key_prefix: str = "",
) -> dict[str, Json]:
    """Answer reads of a ``share`` of the keys with the value that each had when it was first read under the fault.

    So answers a cache or a replica of the store that is not refreshed any more. Up to 50,000 values (32 MiB) are
    kept; what does not fit stays fresh. Without changes of the values, the fault cannot be proven.
    """
    return _inject("stale_values", link, share, key_prefix, {})


@fault(
    needs=(Links,),
    evidence=_PROOF,
    undo=_UNDO,
    healing="serve a snapshot; repair the join",
    draw=lambda rng, target, intensity: where_features_are_read(rng, target, share=round(0.6 * intensity, 3)),
)
def wrong_entity(
    link: str = LINK,
    share: float = 0.5,
    key_prefix: str = "",
) -> dict[str, Json]:
    """Answer reads of a ``share`` of the keys with another key's value: of the same form, in time, and wrong.

    So it is after a bad join or a hash collision. A key always gets the same other key's value: one of the first
    64 keys that were read under the fault, and its own until another is known.
    """
    return _inject("wrong_entity", link, share, key_prefix, {})


@fault(
    needs=(Links,),
    evidence=_PROOF,
    undo=_UNDO,
    healing="serve the last good snapshot",
    draw=lambda rng, target, intensity: where_features_are_read(rng, target, share=round(0.6 * intensity, 3)),
)
def partial_answers(
    link: str = LINK,
    share: float = 0.3,
    how: str = "nil",
    key_prefix: str = "",
) -> dict[str, Json]:
    """Drop the values of a ``share`` of the keys from answers: ``nil`` in their places, or ``fewer`` values.

    Of a hash a random half of the fields is left out. With ``fewer``, answers to MGET and HMGET are shorter; those
    to other reads are nil. Fields that are left out of an answer to HGETALL are always just not there.
    """
    if how not in HOWS:
        raise UsageError(f"how: {how!r} is not one of {', '.join(HOWS)}")
    return _inject("partial_answers", link, share, key_prefix, {"how": how})


@fault(
    needs=(Links,),
    evidence=_PROOF,
    undo=_UNDO,
    healing="serve the last good snapshot; have readers and writers agree",
    draw=lambda rng, target, intensity: where_features_are_read(
        rng, target, change=CHANGES[int(rng.integers(len(CHANGES)))], share=round(intensity, 3)
    ),
)
def schema_mismatch(
    link: str = LINK,
    change: str = "column_added",
    share: float = 1.0,
    key_prefix: str = "",
) -> dict[str, Json]:
    """Change the layout of the values of a ``share`` of the keys, as after a deploy of their writer.

    ``column_added`` (a zero at the end), ``column_dropped`` (the last one), ``reordered`` (backwards), ``float32``
    or ``big_endian``. A value is taken for packed little-endian float64; the columns of an answer to HGETALL are
    its fields, and the one that is dropped is the last by name. Values of another form stay as they are.
    """
    if change not in CHANGES:
        raise UsageError(f"change: {change!r} is not one of {', '.join(CHANGES)}")
    return _inject("schema_mismatch", link, share, key_prefix, {"change": change})


def _inject(kind: str, link: str, share: float, key_prefix: str, more: Mapping[str, Json]) -> dict[str, Json]:
    """Inject a toxic on the values that reads bring back."""
    context = current()
    check_link_share("share", share)
    if not isinstance(key_prefix, str):
        raise UsageError(f"key_prefix: {key_prefix!r} is not text")
    check_link(context.target, link, protocol="redis")
    within_limit("rows_share", share, f"the share of entities whose values {link} changes", adds_up=True)
    links = require(context.target, Links)
    unproven_at_s: list[float] = []

    def evidence(toxic_id: str) -> Evidence | None:
        stats = links.stats(toxic_id)
        if stats["affected"] and (found := _proof(context.target, link, stats)) is not None:
            return found
        now_s = time.monotonic()
        unproven_at_s[:] = unproven_at_s or [now_s + EVIDENCE_WITHIN_S - 0.5]
        if now_s >= unproven_at_s[0]:
            raise Unproven(f"features.{kind} on {link}: {_why_not(stats)}; the trial cannot count")
        return None

    parameters = {
        "share": float(share),
        "seed": seed_for(f"features.{kind}/{link}"),
        "key_prefix": key_prefix,
        **more,
    }
    return inject(
        proxy_fault(f"features.{kind}", link, kind, parameters, links, evidence, within_s=EVIDENCE_WITHIN_S)
    )


def _proof(target: Target, link: str, stats: Mapping[str, Json]) -> Evidence | None:
    """The proof that users' reads were hit, and that a read of our own is hit as well."""
    hit = f"{stats['affected']} of users' {stats['seen']} reads got other values than the store holds"
    newest = stats["changed"][-1]
    change = f"{' '.join(newest['asked'])} gave {newest['given']} for {newest['held']}"
    compared = differing(target, link, stats["changed"])
    if compared is None:
        return None
    if compared.refused:
        own = f"the store answers no read of our own ({compared.refused}), so the proxy's report is the only proof"
    else:
        own = f"our own {compared.asked} differs through the link from past it"
    counts = {name: stats[name] for name in ("seen", "affected", "changed_values")}
    return Evidence(f"{link}: {hit}: {change}; {own}", {**counts, "asked": compared.asked, "newest": newest})


def _why_not(stats: Mapping[str, Json]) -> str:
    """Why there is no proof, for a person."""
    if not stats["seen"]:
        return "no client read a value over it that could be changed"
    if stats["affected"]:
        return f"{stats['affected']} reads were changed, but none that we repeated differed"
    if stats.get("remembered"):
        return f"none of the {stats['remembered']:.0f} values that were read changed, so none was stale"
    if stats.get("of_another_form"):
        return f"none of the {stats['of_another_form']:.0f} values that were read has a form that can be changed"
    return f"none of users' {stats['seen']} reads was changed: another share, or another key_prefix"

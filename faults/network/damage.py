"""Faults that damage what passes a link: cut off, corrupted, without headers, with flipped bits."""

from __future__ import annotations

from collections.abc import Mapping

from monkeyproof.faults.network.common import UNDO, inject_on_messages, struck
from monkeyproof.faults.proxy.toxics.corrupt_bytes import CorruptBytes
from monkeyproof.faults.proxy.toxics.corrupt_json import CorruptJson
from monkeyproof.faults.proxy.toxics.drop_headers import DropHeaders
from monkeyproof.faults.proxy.toxics.truncate import Truncate
from monkeyproof.faults.support.checks import check_at_least_zero, check_link_share, check_number
from monkeyproof.faults.support.links import check_link, on_a_link, proxy_fault, seed_for
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current, inject
from monkeyproof.targets.port import Links, require
from monkeyproof.types import Evidence, Json


@fault(
    former_names=("truncate_answers",),
    needs=(Links,),
    evidence="a response was cut off, and its connection closed",
    undo=UNDO,
    healing="retry elsewhere; drain the path",
    draw=lambda rng, target, intensity: on_a_link(rng, target, protocol="http", share=round(0.5 * intensity, 3)),
)
def truncate_responses(
    link: str,
    keep_bytes: int = 0,
    share: float = 1.0,
) -> dict[str, Json]:
    """Cut a ``share`` of the responses off after ``keep_bytes`` of the body at most, and close the connection.

    Headers pass unchanged, so Content-Length says more than there is; at least one byte is always missing (16 of a
    body that has no length). Responses without a body are left alone. Proven by a response that was cut off.
    """
    check_at_least_zero("keep_bytes", keep_bytes)
    return inject_on_messages(
        "truncate_responses", link, Truncate, share, "responses cut off", keep_bytes=keep_bytes
    )


@fault(
    former_names=("garble_answers",),
    needs=(Links,),
    evidence="the body of a JSON response was changed",
    undo=UNDO,
    healing="check responses, not statuses; drain the path",
    draw=lambda rng, target, intensity: on_a_link(
        rng,
        target,
        protocol="http",
        share=round(0.5 * intensity, 3),
        mode=("unparsable", "changed")[int(rng.integers(2))],
    ),
)
def corrupt_json(
    link: str,
    mode: str = "unparsable",
    share: float = 1.0,
) -> dict[str, Json]:
    """Damage the body of a ``share`` of the JSON responses; status, headers and framing stay in order.

    ``mode`` "unparsable": it is cut short inside and is not JSON any more. "changed": it is JSON, in which one
    number is larger by one (without numbers: one truth value is the other). Other responses, and those larger
    than 8 MiB, are left alone. Proven by a response that was changed.
    """
    return inject_on_messages("corrupt_json", link, CorruptJson, share, f"JSON responses made {mode}", mode=mode)


@fault(
    former_names=("lose_headers",),
    needs=(Links,),
    evidence="a message that had such a header went on without it",
    undo=UNDO,
    healing="do without the header, or refuse with an error that names it",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="http", names="content-type", share=round(intensity, 3)
    ),
)
def drop_headers(
    link: str,
    names: str,
    direction: str = "response",
    share: float = 1.0,
) -> dict[str, Json]:
    """Leave the headers ``names`` (separated by commas) out of a ``share`` of the requests or responses.

    Content-Length and Transfer-Encoding cannot be left out: they say where a message ends.
    Proven by a message that had such a header and went on without it.
    """
    hits = f"{'responses' if direction == 'response' else 'requests'} without {names}"
    return inject_on_messages(
        "drop_headers", link, DropHeaders, share, hits, names=str(names), direction=direction
    )


@fault(
    needs=(Links,),
    evidence="bits were flipped in bytes that were delivered",
    undo=UNDO,
    healing="checksums, or known answers; a fallback that does without that dependency",
    draw=lambda rng, target, intensity: on_a_link(
        rng, target, protocol="tcp", block_share=round(0.5 * intensity, 3), direction="response"
    ),
)
def corrupt_bytes(
    link: str,
    block_share: float = 1.0,
    block_bytes: int = 256,
    direction: str = "response",
    share: float = 1.0,
) -> dict[str, Json]:
    """Flip one bit in each of a ``block_share`` of the blocks of ``block_bytes`` bytes of one ``direction``.

    On a ``share`` of the connections. Which bit depends on the seed, the connection's number and the byte's place
    in it, not on how the bytes arrive. Proven by bits that were flipped in what was delivered.
    """
    context = current()
    for name, value in (("block_share", block_share), ("share", share)):
        check_number(name, value)
    check_at_least_zero("block_bytes", block_bytes)
    parameters = {
        "block_share": float(block_share),
        "block_bytes": block_bytes,
        "direction": direction,
        "share": float(share),
        "seed": seed_for(f"network.corrupt_bytes/{link}"),
    }
    CorruptBytes(**parameters)  # type: ignore[arg-type]  # Checks them.
    for name, value in (("block_share", block_share), ("share", share)):
        check_link_share(name, value)
    check_link(context.target, link)

    def find_effect(stats: Mapping[str, Json]) -> Evidence | None:
        if not stats.get("flipped_bits"):
            return None
        first = stats["journal"][0]
        return Evidence(
            f"{link}: {stats['flipped_bits']} bits flipped on {stats['affected']} connections; byte {first['at']} "
            f"of connection {first['connection']} was {first['old']:#04x} and is {first['new']:#04x}",
            {"flipped_bits": stats["flipped_bits"], "connections": stats["affected"], "first": first},
        )

    links = require(context.target, Links)
    evidence = struck(link, find_effect)
    within_s = min(60.0, 5 / (share * block_share))
    return inject(
        proxy_fault("network.corrupt_bytes", link, "corrupt_bytes", parameters, links, evidence, within_s=within_s)
    )

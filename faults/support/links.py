"""What faults on links share: checks, the toxic with its undo, and requests of our own."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import uuid
from collections.abc import Callable, Mapping

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.injection.inject import Injection, current
from monkeyproof.targets.port import LEASE_S, Links, Target, Toxic, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

OWN_REQUEST = {"X-Monkeyproof": "evidence"}
"""Marks the harness's own requests, which the proxy counts separately and gives random numbers of their own."""


def proxy_fault(
    fault: str,
    link: str,
    kind: str,
    parameters: Mapping[str, Json],
    links: Links,
    evidence: Callable[[str], Evidence | None],
    *,
    within_s: float,
) -> Injection:
    """A fault that is a toxic. Its id is chosen here, so that the undo is known before the toxic exists."""
    toxic_id = f"{kind}-{uuid.uuid4().hex[:12]}"
    return Injection(
        fault=fault,
        subject=link,
        parameters=dict(parameters),
        apply=lambda: links.add(Toxic(link, kind, parameters, toxic_id, LEASE_S)),
        evidence=evidence,
        undo=Undo("monkeyproof.faults.network:remove_toxic", {"link": link, "toxic_id": toxic_id}),
        evidence_within_s=within_s,
        prior={"faults_on_link": faults_on(links, link)},
        lease_s=LEASE_S,
    )


def faults_on(links: Links, link: str) -> list[str]:
    """Ids of the toxics on one link at this moment, also of other owners."""
    found = []
    for toxic_id in links.active():
        with contextlib.suppress(TargetError):  # It was removed in between.
            if links.stats(toxic_id)["link"] == link:
                found.append(toxic_id)
    return found


def seed_for(purpose: str) -> int:
    """A seed for a toxic, drawn from the trial's randomness for this purpose."""
    return int(current().rng(purpose).integers(2**63))


def check_link(target: Target, link: str, *, protocol: str = "") -> str:
    """The link's protocol.

    Raises:
        UsageError: the target has no such link, or it does not speak ``protocol``.
        Refusal: the target's links cannot be controlled.
    """
    known = require(target, Links).list()
    if link not in known or link not in target.file.links:
        raise UsageError(
            f"link: target {target.file.name!r} has no link {link!r}; it has {', '.join(sorted(known)) or 'none'}"
        )
    found = target.file.links[link].protocol
    if not _speaks(found, protocol):
        suitable = sorted(name for name, one in target.file.links.items() if _speaks(one.protocol, protocol))
        raise Refusal(
            f"{link} is a {found} link, and this fault needs one that speaks {protocol}",
            f"choose one of: {', '.join(suitable) or 'none'}",
        )
    return found


def on_a_link(
    rng: np.random.Generator, target: TargetFile, *, protocol: str = "", **arguments: Json
) -> Mapping[str, Json] | None:
    """Arguments of a fault on a link that is drawn among the target's; None if none speaks ``protocol``."""
    links = sorted(name for name, one in target.links.items() if _speaks(one.protocol, protocol))
    return {"link": links[int(rng.integers(len(links)))], **arguments} if links else None


def _speaks(protocol: str, wanted: str) -> bool:
    """Whether a link of protocol ``protocol`` suits a fault that wants another. RESP is TCP as well."""
    return not wanted or protocol == wanted or (protocol, wanted) == ("redis", "tcp")


def listen_address(target: Target, link: str) -> tuple[str, int]:
    """Host and port where the proxy listens for a link."""
    host, _, port = target.file.links[link].listen.rpartition(":")
    return host, int(port)


def send_own_request(target: Target, link: str, *, timeout_s: float) -> tuple[int, str] | None:
    """``GET /health`` through the link, marked as ours: status and the id of the toxic that answered, if one did.

    None if no answer came.
    """
    host, port = listen_address(target, link)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/health", headers=OWN_REQUEST)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("X-Monkeyproof", "")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def broken_how(address: tuple[str, int]) -> str | None:
    """How a new connection fails: "refused" or "reset"; None if it stays open for 50 ms."""
    try:
        with socket.create_connection(address, timeout=1.0) as connection:
            # Closing sends a reset, so that a connection that stays open leaves nothing behind.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.settimeout(0.05)
            connection.recv(1)
            return None
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except OSError:
        return None

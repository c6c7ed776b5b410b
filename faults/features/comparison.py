"""Reads from a feature store twice, through a link and past it, and compares the answers bit for bit."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.faults.proxy.resp import framing as resp
from monkeyproof.faults.proxy.resp.framing import OWN_NAME, NotResp, RespFramer
from monkeyproof.faults.support.links import listen_address
from monkeyproof.targets.port import Target
from monkeyproof.types import Json

TIMEOUT_S = 1.0
MOST_BYTES = 1024 * 1024
TRIES = 4
_REFUSALS = (b"-NOAUTH", b"-NOPERM", b"-WRONGPASS", b"-DENIED")


@dataclass(frozen=True, slots=True)
class Compared:
    """A read that gave other answers through the link than past it."""

    asked: str
    refused: str = ""
    """Why the store refuses our reads; "" if the answers differ."""


def differing(target: Target, link: str, changed: Sequence[Mapping[str, Json]]) -> Compared | None:
    """One of the newest values that a toxic says it changed and that really differs; None if none does now."""
    through = listen_address(target, link)
    host, _, port = target.file.links[link].forward.rpartition(":")
    past = host, int(port)
    for one in list(reversed(changed))[:TRIES]:
        words = [word.encode("latin-1") for word in one["asked"]]
        name = " ".join(word.decode("utf-8", "backslashreplace") for word in words)
        held = ask(past, words)
        if held is not None and held.startswith(_REFUSALS):
            return Compared(name, held[1:60].split(b"\r\n")[0].decode("utf-8", "replace"))
        given = ask(through, words)
        # Read again, since a value that was written in between differs as well.
        if held is not None and given is not None and held != given and held == ask(past, words):
            return Compared(name)
    return None


def ask(address: tuple[str, int], words: Sequence[bytes]) -> bytes | None:
    """The store's whole reply to one read, as it came; None if none came. It names the harness to the store."""
    framer, replies, reply = RespFramer(requests=False), 0, b""
    ends_s = time.monotonic() + TIMEOUT_S
    try:
        with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
            connection.sendall(resp.command(b"CLIENT", b"SETNAME", OWN_NAME) + resp.command(*words))
            while len(reply) < MOST_BYTES and time.monotonic() < ends_s:
                data = connection.recv(1 << 16)
                if not data:
                    return None
                framer.feed(data)
                while (piece := framer.next()) is not None:
                    reply += piece.data
                    if piece.end:
                        replies += 1
                        if replies == 2:
                            return reply
                        reply = b""
    except (OSError, NotResp):
        return None
    return None

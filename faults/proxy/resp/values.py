"""The values that reads of a feature store return, and the memory of toxics that change them.

Whether a key is hit depends on the seed and the key alone: a chosen entity is hit in every read, over every
connection, by every client, and a read of the harness's own shifts nothing. What is remembered is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from monkeyproof.faults.proxy.resp.framing import Read
from monkeyproof.types import Json

MAX_REMEMBERED = 50_000
MAX_REMEMBERED_BYTES = 32 * 1024 * 1024
_SHOWN_BYTES = 16

Row = tuple[tuple[bytes, bytes], ...]
Value = bytes | Row | None
"""A bulk string; the names and values of a hash, in the order of the reply; or nil."""


@dataclass(frozen=True, slots=True)
class ReadValue:
    """What a reply says in answer to one read."""

    read: Read
    value: Value


def name_chosen(seed: int, share: float, purpose: bytes, name: bytes) -> bool:
    """Whether a share of all names holds this one."""
    return share >= 1 or name_number(seed, purpose, name) < share * 2.0**64


def name_number(seed: int, purpose: bytes, name: bytes) -> int:
    """64 random bits that depend on the three arguments alone."""
    key = (seed & (2**64 - 1)).to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8, key=key, person=purpose).digest(), "little")


class ValueMemory:
    """Values of reads. What does not fit is not remembered, and counted."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self.values: dict[Read, Value] = {}
        self.refused = 0
        self._most = most
        self._bytes = 0

    def put(self, read: Read, value: Value) -> bool:
        """Remember, in place of what was; False if there is no room."""
        old_bytes = _size(read, self.values[read]) if read in self.values else 0
        grown = _size(read, value) - old_bytes
        if (not old_bytes and len(self.values) >= self._most) or self._bytes + grown > MAX_REMEMBERED_BYTES:
            self.refused += 1
            return False
        self._bytes += grown
        self.values[read] = value
        return True


def _size(read: Read, value: Value) -> int:
    row = sum(len(name) + len(one) for name, one in value) if isinstance(value, tuple) else len(value or b"")
    return 100 + len(read.key) + len(read.field) + row


def noted(before: Sequence[ReadValue], after: Sequence[ReadValue]) -> list[dict[str, Json]]:
    """What was changed in one reply: how to ask for it again, what the store held, and what was given."""
    now = {one.read: one.value for one in after}
    return [
        {
            "asked": [word.decode("latin-1") for word in one.read.asked],
            "held": shown(one.value),
            "given": shown(now[one.read]) if one.read in now else "nothing",
        }
        for one in before
        if one.read not in now or now[one.read] != one.value
    ]


def shown(value: Value) -> str:
    """A value in a few words."""
    if value is None:
        return "nil"
    if isinstance(value, tuple):
        return f"{len(value)} fields ({hashlib.sha256(repr(value).encode()).hexdigest()[:12]})"
    return f"{len(value)} bytes ({value[:_SHOWN_BYTES].hex()}{'...' if len(value) > _SHOWN_BYTES else ''})"

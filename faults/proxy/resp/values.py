"""Wrong answers of a feature store: what the toxics of Redis links make of the values that reads bring back.

Whether a key is hit depends on the seed and the key alone: a chosen entity is hit in every read, over every
connection, whoever asks, and a read of the harness's own shifts nothing. What is remembered is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.resp.framing import Read
from monkeyproof.types import Json

MAX_REMEMBERED = 50_000
MAX_REMEMBERED_BYTES = 32 * 1024 * 1024
MAX_DONORS = 64
HOWS = ("nil", "fewer")
CHANGES = ("column_added", "column_dropped", "reordered", "float32", "big_endian")
_ITEM_BYTES = 8
_SHOWN_BYTES = 16

Row = tuple[tuple[bytes, bytes], ...]
Value = bytes | Row | None
"""A bulk string; the names and values of a hash, in the order of the reply; or nil."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a reply says in answer to one read."""

    read: Read
    value: Value


def chosen(seed: int, share: float, purpose: bytes, name: bytes) -> bool:
    """Whether a share of all names holds this one."""
    return share >= 1 or _number(seed, purpose, name) < share * 2.0**64


def _number(seed: int, purpose: bytes, name: bytes) -> int:
    key = (seed & (2**64 - 1)).to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8, key=key, person=purpose).digest(), "little")


class Memory:
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


@dataclass(frozen=True, slots=True)
class _OfKeys:
    """What all of them have: which keys they touch."""

    share: float
    seed: int
    key_prefix: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"share: {self.share} is not in (0, 1]")

    def hits(self, key: bytes) -> bool:
        """Whether this key is one of those that are touched."""
        return self.may_touch(key) and chosen(self.seed, self.share, b"key", key)

    def may_touch(self, key: bytes) -> bool:
        return key.startswith(self.key_prefix.encode())


@dataclass(frozen=True, slots=True)
class StaleValues(_OfKeys):
    """A share of the keys have the value for ever that they had when they were first read under the fault."""

    def maker(self) -> Maker:
        memory = Memory()

        def change(parts: Sequence[Part]) -> list[Part]:
            found = []
            for part in parts:
                if self.hits(part.read.key):
                    if part.read in memory.values:
                        found.append(replace(part, value=memory.values[part.read]))
                        continue
                    memory.put(part.read, part.value)
                found.append(part)
            return found

        return Maker(change, lambda: {"remembered": len(memory.values), "not_remembered": memory.refused})


@dataclass(frozen=True, slots=True)
class WrongEntity(_OfKeys):
    """A share of the keys have another key's value: of one of the first that were read under the fault."""

    def maker(self) -> Maker:
        memory = Memory()
        donors: dict[bytes, None] = {}
        given: dict[bytes, bytes] = {}
        alone = 0

        def other_than(part: Part) -> Value:
            key = part.read.key
            if key not in given and len(given) < MAX_REMEMBERED:
                values = {donor: memory.values.get(part.read._replace(key=donor)) for donor in donors}
                others = [donor for donor, value in values.items() if value not in (None, part.value)]
                if others:  # By lot, which every key draws anew.
                    given[key] = min(others, key=lambda donor: _number(self.seed, b"donor", key + b"\0" + donor))
            return memory.values.get(part.read._replace(key=given[key])) if key in given else None

        def change(parts: Sequence[Part]) -> list[Part]:
            nonlocal alone
            for part in parts:
                if self.may_touch(part.read.key) and part.value is not None:
                    if len(donors) < MAX_DONORS:
                        donors.setdefault(part.read.key)
                    if part.read.key in donors:
                        memory.put(part.read, part.value)
            found = []
            for part in parts:
                if part.value is not None and self.hits(part.read.key):
                    other = other_than(part)
                    alone += other is None
                    found.append(part if other is None else replace(part, value=other))
                else:
                    found.append(part)
            return found

        return Maker(change, lambda: {"donors": len(donors), "without_donor": alone})


@dataclass(frozen=True, slots=True)
class PartialAnswers(_OfKeys):
    """Of a share of the keys the value is missing, or every other field by lot: nil, or (``fewer``) not there."""

    how: str = "nil"

    def __post_init__(self) -> None:
        _OfKeys.__post_init__(self)
        if self.how not in HOWS:
            raise UsageError(f"how: {self.how!r} is not one of {', '.join(HOWS)}")

    def takes(self, key: bytes, name: bytes) -> bool:
        """Whether a field of a key that is hit is missing."""
        return chosen(self.seed, 0.5, b"field", key + b"\0" + name)

    def maker(self) -> Maker:
        def missing(read: Read, name: bytes) -> bool:
            return self.hits(read.key) and (not name or self.takes(read.key, name))

        def change(parts: Sequence[Part]) -> list[Part]:
            found = []
            for part in parts:
                read, value = part.read, part.value
                if isinstance(value, tuple):
                    kept = tuple((name, one) for name, one in value if not missing(read, name))
                    found.append(replace(part, value=kept))
                elif value is None or not missing(read, read.field):
                    found.append(part)
                elif self.how == "nil":
                    found.append(replace(part, value=None))
            return found

        return Maker(change)


@dataclass(frozen=True, slots=True)
class SchemaMismatch(_OfKeys):
    """Values of a share of the keys are laid out in another way, as after a deploy of whatever writes them."""

    change: str = "column_added"

    def __post_init__(self) -> None:
        _OfKeys.__post_init__(self)
        if self.change not in CHANGES:
            raise UsageError(f"change: {self.change!r} is not one of {', '.join(CHANGES)}")

    def maker(self) -> Maker:
        other = 0

        def change(parts: Sequence[Part]) -> list[Part]:
            nonlocal other
            found = []
            for part in parts:
                if not self.hits(part.read.key) or part.value is None:
                    found.append(part)
                    continue
                value = part.value
                made = _row_as(self.change, value) if isinstance(value, tuple) else _packed_as(self.change, value)
                other += made is None
                found.append(replace(part, value=value if made is None else made))
            return found

        return Maker(change, lambda: {"of_another_form": other})


def noted(before: Sequence[Part], after: Sequence[Part]) -> list[dict[str, Json]]:
    """What was changed in one reply: how to ask for it again, what the store held, and what was given."""
    now = {part.read: part.value for part in after}
    return [
        {
            "asked": [word.decode("latin-1") for word in part.read.asked],
            "held": shown(part.value),
            "given": shown(now[part.read]) if part.read in now else "nothing",
        }
        for part in before
        if part.read not in now or now[part.read] != part.value
    ]


def shown(value: Value) -> str:
    """A value in a few words."""
    if value is None:
        return "nil"
    if isinstance(value, tuple):
        return f"{len(value)} fields ({hashlib.sha256(repr(value).encode()).hexdigest()[:12]})"
    return f"{len(value)} bytes ({value[:_SHOWN_BYTES].hex()}{'...' if len(value) > _SHOWN_BYTES else ''})"


@dataclass
class Maker:
    """A toxic at work: what it makes of the parts of one reply, with what it remembers; and what it counted."""

    change: Callable[[Sequence[Part]], list[Part]]
    counts: Callable[[], Mapping[str, float]] = field(default=dict)


ValueToxic = StaleValues | WrongEntity | PartialAnswers | SchemaMismatch
VALUE_KINDS: Mapping[str, type[ValueToxic]] = {
    "stale_values": StaleValues,
    "wrong_entity": WrongEntity,
    "partial_answers": PartialAnswers,
    "schema_mismatch": SchemaMismatch,
}


def _packed_as(change: str, value: bytes) -> bytes | None:
    """Packed little-endian float64, laid out in another way; None if it cannot be such."""
    if not value or len(value) % _ITEM_BYTES:
        return None
    columns = np.frombuffer(value, dtype="<f8")
    match change:
        case "column_added":
            return value + bytes(_ITEM_BYTES)
        case "column_dropped":
            return value[:-_ITEM_BYTES]
        case "reordered":
            return columns[::-1].tobytes()
        case "float32":
            with np.errstate(over="ignore", invalid="ignore"):
                return columns.astype("<f4").tobytes()
    return columns.byteswap().tobytes()


def _row_as(change: str, row: Row) -> Row | None:
    """A hash, laid out in another way; None if it has nothing to change."""
    names = [name for name, _ in row]
    match change:
        case "column_added":
            return (*row, (b"column_added", bytes(_ITEM_BYTES)))
        case "column_dropped":
            return tuple(pair for pair in row if pair[0] != max(names)) if names else None
        case "reordered":
            return tuple(zip(names, (value for _, value in reversed(row)), strict=True))
    made = [(name, _packed_as(change, value)) for name, value in row]
    return tuple((name, new) for name, new in made if new is not None) if all(new for _, new in made) else None

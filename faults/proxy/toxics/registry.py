"""Toxics: the kinds of faults that the proxy puts on a link, their parameters, and what each one counts.

A kind is a frozen dataclass of checked parameters that also makes the decisions. The decision for the n-th
request that a toxic sees depends on ``(seed, n)`` alone: not on the clock, not on other toxics.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.request_random import check
from monkeyproof.faults.proxy.resp.values import VALUE_KINDS, Maker, Part, ValueToxic, noted
from monkeyproof.faults.proxy.toxics import connections
from monkeyproof.faults.proxy.toxics.connections import OnConnections
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.messages import Garble, HttpError, LoseHeaders, RateLimit, Truncate
from monkeyproof.types import Json

if TYPE_CHECKING:
    from monkeyproof.faults.proxy.byte_filters import Pacer

JOURNAL_CELLS = 500
NOTED_VALUES = 32


@dataclass(frozen=True, slots=True)
class Down:
    """Reset every connection. New ones are accepted and reset (``reset``) or refused by the kernel
    (``refuse-like``)."""

    mode: str = "reset"

    def __post_init__(self) -> None:
        check(self.mode in ("reset", "refuse-like"), "down", "mode is 'reset' or 'refuse-like'")


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept connections, but neither read nor answer."""


@dataclass(frozen=True, slots=True)
class CorruptRecords:
    """Do to the records in JSON responses what a fault of ``monkeyproof.faults.proxy.records.faults`` does."""

    fault: str
    parameters: Mapping[str, Json]
    seed: int

    def __post_init__(self) -> None:
        # Numpy, and all that the faults of data need, for whoever asks for it.
        from monkeyproof.faults.proxy.records.faults import record_fault

        try:
            record_fault(self.fault, self.parameters)
        except UsageError as error:
            raise UsageError(f"corrupt_records: {error}") from None


Parameters = (
    Latency
    | HttpError
    | Down
    | Hang
    | CorruptRecords
    | RateLimit
    | Truncate
    | Garble
    | LoseHeaders
    | OnConnections
    | ValueToxic
)
KINDS: Mapping[str, type[Parameters]] = {
    "latency": Latency,
    "http_error": HttpError,
    "down": Down,
    "hang": Hang,
    "corrupt_records": CorruptRecords,
    "rate_limit": RateLimit,
    "truncate": Truncate,
    "garble": Garble,
    "lose_headers": LoseHeaders,
    "bandwidth": connections.Bandwidth,
    "reset": connections.Reset,
    "blackhole": connections.Blackhole,
    "partition": connections.Partition,
    "half_close": connections.HalfClose,
    "slow_close": connections.SlowClose,
    "corrupt_bytes": connections.CorruptBytes,
    **VALUE_KINDS,
}
HTTP_ONLY = frozenset({"http_error", "corrupt_records", "rate_limit", "truncate", "garble", "lose_headers"})
REDIS_ONLY = frozenset(VALUE_KINDS)


def parse(kind: str, parameters: Mapping[str, Json], protocol: str) -> Parameters:
    """Check what a client asks for.

    Raises:
        UsageError: unknown kind or parameter, a value of the wrong type or range, or a toxic that needs a link of
            another protocol.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r}: no such toxic; there are {', '.join(sorted(KINDS))}")
    if kind in HTTP_ONLY and protocol != "http":
        raise UsageError(f"{kind}: needs a link whose protocol is http, and this one is {protocol}")
    if kind in REDIS_ONLY and protocol != "redis":
        raise UsageError(f"{kind}: needs a link whose protocol is redis, and this one is {protocol}")
    known = {one.name: one for one in dataclasses.fields(KINDS[kind])}
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise UsageError(f"{kind}: unknown parameter {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    missing = [
        name for name, one in known.items() if one.default is dataclasses.MISSING and name not in parameters
    ]
    if missing:
        raise UsageError(f"{kind}: parameter {missing[0]!r} is missing; it takes {', '.join(known)}")
    return KINDS[kind](
        **{name: _value(kind, name, str(known[name].type), value) for name, value in parameters.items()}
    )


def _value(kind: str, name: str, wanted: str, value: Json) -> Json:
    if wanted.startswith("float"):
        if value is None and wanted == "float | None":
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{kind}: {name} must be a finite number, not {value!r}")
        return float(value)
    types: dict[str, tuple[type, str]] = {
        "int": (int, "a whole number"),
        "str": (str, "text"),
        "Mapping[str, Json]": (dict, "a mapping"),
    }
    wanted_type, words = types[wanted]
    if isinstance(value, bool) or not isinstance(value, wanted_type):
        raise UsageError(f"{kind}: {name} must be {words}, not {value!r}")
    return value


class Held(Protocol):
    """Something that a toxic holds back, and must let go of when the toxic goes."""

    def release(self) -> None: ...


@dataclass(eq=False)
class Active:
    """A toxic on a link: its counters, and what it holds at the moment."""

    id: str
    link: str
    kind: str
    parameters: Parameters
    seen: int = 0
    """Users' requests (answers, chunks, connections) that were decided on."""
    own_seen: int = 0
    """The same for the harness's own requests, which are told apart by their X-Monkeyproof header."""
    affected: int = 0
    """Users' requests, chunks or connections that the fault really hit."""
    own_affected: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    journal: deque[dict[str, Json]] = field(default_factory=lambda: deque(maxlen=JOURNAL_CELLS))
    newest_position: int = 0
    """The newest record that was held back."""
    trouble: str = ""
    """Why it could not do its work on what passed last, if it could not."""
    held: set[Held] = field(default_factory=set)
    tokens: dict[bool, tuple[float, float]] = field(default_factory=dict)
    """Of a rate limit, for users (False) and for the harness: how many are left, and since when."""
    pacer: Pacer | None = None
    """Of a bandwidth that all connections share."""
    sample: Callable[[], Mapping[str, float]] | None = None
    """Read when statistics are asked for: what can only be seen by looking."""
    lease_s: float | None = None
    due_s: float = 0.0
    """When the lease runs out, unless it is renewed before."""

    maker: Maker | None = field(init=False, default=None)
    """Changes what reads bring back; None for the toxics that do not."""
    changed: deque[dict[str, Json]] = field(default_factory=lambda: deque(maxlen=NOTED_VALUES))
    """The newest of what it changed in users' reads."""

    def __post_init__(self) -> None:
        if isinstance(self.parameters, ValueToxic):
            self.maker = self.parameters.maker()

    def note(self, before: Sequence[Part], after: Sequence[Part]) -> None:
        """Remember what a user was told in place of what the store said."""
        found = noted(before, after)
        self.count("changed_values", len(found))
        self.changed.extend(found)

    def draw(self, own: bool) -> int:
        """The number of the next request."""
        if own:
            self.own_seen += 1
            return self.own_seen - 1
        self.seen += 1
        return self.seen - 1

    def hit(self, own: bool) -> None:
        if own:
            self.own_affected += 1
        else:
            self.affected += 1

    def count(self, name: str, amount: float = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount

    def release(self) -> None:
        """Let go of everything that is held."""
        for one in list(self.held):
            one.release()
        self.held.clear()

    def stats(self) -> dict[str, Json]:
        """All counters, as JSON."""
        found: dict[str, Json] = {
            "id": self.id,
            "link": self.link,
            "kind": self.kind,
            "seen": self.seen,
            "own_seen": self.own_seen,
            "affected": self.affected,
            "own_affected": self.own_affected,
            "pending": len(self.held),
            **self.counters,
        }
        if self.sample is not None:
            found.update(self.sample())
        if isinstance(self.parameters, CorruptRecords | connections.CorruptBytes):
            found["journal"] = list(self.journal)
        if isinstance(self.parameters, CorruptRecords):
            found |= {"newest_position": self.newest_position, "trouble": self.trouble}
        if self.maker is not None:
            found.update(self.maker.counts(), changed=list(self.changed))
        return found


class Collected:
    """A message that is collected whole, to be changed. Let go of unchanged if a toxic goes."""

    def __init__(self, actives: Iterable[Active]) -> None:
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        for active in actives:
            active.held.add(self)

    def add(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size_bytes += len(data)

    def release(self) -> None:
        raise NotImplementedError

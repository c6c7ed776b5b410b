"""Toxics: the kinds of faults that the proxy puts on a link, their parameters, and what each one counts.

A kind is a frozen dataclass of checked parameters that also makes the decisions. The decision for the n-th
request that a toxic sees depends on ``(seed, n)`` alone: not on the clock, not on other toxics.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from monkeyproof.errors import UsageError
from monkeyproof.types import Json

JOURNAL_CELLS = 500
_MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """One output of SplitMix64 for the state ``x``: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), with the constants of Vigna's public-domain splitmix64.c."""
    z = (x + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, stream: int, n: int) -> float:
    """A number in [0, 1) that depends on its three arguments alone."""
    key = splitmix64(splitmix64(seed & _MASK) ^ stream)
    return (splitmix64((key + n * 0x9E3779B97F4A7C15) & _MASK) >> 11) * 2.0**-53


# Streams: the harness's own requests draw from streams of their own, so that proving a fault does not change
# which of the users' requests it hits.
_CHOSEN, _AMOUNT = 0, 1
_OWN = 2


def _require(ok: bool, kind: str, why: str) -> None:
    if not ok:
        raise UsageError(f"{kind}: {why}")


@dataclass(frozen=True, slots=True)
class Latency:
    """Hold each request (on TCP links each chunk from the client) for a time in ``[low_ms, high_ms]``."""

    low_ms: float
    high_ms: float
    seed: int
    share: float = 1.0

    def __post_init__(self) -> None:
        _require(0 <= self.low_ms <= self.high_ms, "latency", "needs 0 <= low_ms <= high_ms")
        _require(self.high_ms <= 600_000, "latency", "high_ms is at most 600000")
        _require(0 < self.share <= 1, "latency", "share is in (0, 1]")

    def delay_ms(self, n: int, *, own: bool = False) -> float | None:
        """The delay of request ``n``; None if it is not chosen."""
        stream = _OWN if own else 0
        if self.share < 1 and uniform(self.seed, stream + _CHOSEN, n) >= self.share:
            return None
        return self.low_ms + (self.high_ms - self.low_ms) * uniform(self.seed, stream + _AMOUNT, n)


@dataclass(frozen=True, slots=True)
class HttpError:
    """Answer a share of the requests with ``status``, without asking the server."""

    probability: float
    status: int
    seed: int
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        _require(0 < self.probability <= 1, "http_error", "probability is in (0, 1]")
        _require(400 <= self.status <= 599, "http_error", "status is in 400..599")
        _require(self.retry_after_s is None or self.retry_after_s >= 0, "http_error", "retry_after_s is >= 0")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return uniform(self.seed, (_OWN if own else 0) + _CHOSEN, n) < self.probability


@dataclass(frozen=True, slots=True)
class Down:
    """Reset every connection. New ones are accepted and reset (``reset``) or refused by the kernel
    (``refuse-like``)."""

    mode: str = "reset"

    def __post_init__(self) -> None:
        _require(self.mode in ("reset", "refuse-like"), "down", "mode is 'reset' or 'refuse-like'")


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept connections, but neither read nor answer."""


@dataclass(frozen=True, slots=True)
class CorruptRecords:
    """Do to the records in JSON responses what a fault of ``monkeyproof.faults.record_faults`` does."""

    fault: str
    parameters: Mapping[str, Json]
    seed: int

    def __post_init__(self) -> None:
        # Numpy, and all that the faults of data need, for whoever asks for it.
        from monkeyproof.faults.record_faults import record_fault

        try:
            record_fault(self.fault, self.parameters)
        except UsageError as error:
            raise UsageError(f"corrupt_records: {error}") from None


Parameters = Latency | HttpError | Down | Hang | CorruptRecords
KINDS: Mapping[str, type[Parameters]] = {
    "latency": Latency,
    "http_error": HttpError,
    "down": Down,
    "hang": Hang,
    "corrupt_records": CorruptRecords,
}
HTTP_ONLY = frozenset({"http_error", "corrupt_records"})


def parse(kind: str, parameters: Mapping[str, Json], protocol: str) -> Parameters:
    """Check what a client asks for.

    Raises:
        UsageError: unknown kind or parameter, a value of the wrong type or range, or an HTTP toxic on a TCP link.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r}: no such toxic; there are {', '.join(sorted(KINDS))}")
    if kind in HTTP_ONLY and protocol != "http":
        raise UsageError(f"{kind}: needs a link whose protocol is http, and this one is {protocol}")
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
    """Users' requests that were decided on."""
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
    sample: Callable[[], Mapping[str, float]] | None = None
    """Read when statistics are asked for: what can only be seen by looking."""
    lease_s: float | None = None
    due_s: float = 0.0
    """When the lease runs out, unless it is renewed before."""

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
        if isinstance(self.parameters, CorruptRecords):
            found["journal"] = list(self.journal)
            found |= {"newest_position": self.newest_position, "trouble": self.trouble}
        return found

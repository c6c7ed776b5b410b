"""Toxics that act on HTTP messages: refusals in the server's place, and answers that arrive damaged.

Decisions depend on (seed, n) alone, n counting the requests or answers that a toxic saw. The one exception is a
rate limit: it depends on when requests come.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Protocol

from monkeyproof.faults.proxy.request_random import check, chosen

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


class Drawing(Protocol):
    """What a decision needs of the toxic that is in force: numbers of requests, and what fills up with time."""

    tokens: dict[bool, tuple[float, float]]

    def draw(self, own: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class HttpError:
    """Answer a share of the requests with ``status``, without asking the server."""

    probability: float
    status: int
    seed: int
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        check(0 < self.probability <= 1, "http_error", "probability is in (0, 1]")
        check(400 <= self.status <= 599, "http_error", "status is in 400..599")
        check(self.retry_after_s is None or self.retry_after_s >= 0, "http_error", "retry_after_s is >= 0")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.probability, n, own=own)

    def refuses(self, active: Drawing, own: bool) -> bool:
        return self.hits(active.draw(own), own=own)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Answer 429 to requests beyond ``limit_per_s``: a bucket of ``burst`` tokens, from which each request that
    passes takes one. The harness's own requests have a bucket of their own."""

    limit_per_s: float
    burst: int = 1
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        check(0 < self.limit_per_s <= 1e6, "rate_limit", "limit_per_s is in (0, 1000000]")
        check(1 <= self.burst <= 1_000_000, "rate_limit", "burst is at least 1")
        check(0 <= self.retry_after_s <= 86_400, "rate_limit", "retry_after_s is in 0..86400")

    @property
    def status(self) -> int:
        return 429

    def refuses(self, active: Drawing, own: bool) -> bool:
        active.draw(own)
        now_s = time.monotonic()
        tokens, at_s = active.tokens.get(own, (float(self.burst), now_s))
        tokens = min(float(self.burst), tokens + (now_s - at_s) * self.limit_per_s)
        active.tokens[own] = (tokens - 1 if tokens >= 1 else tokens, now_s)
        return tokens < 1


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut a share of the answers off after ``keep_bytes`` of the body at most, and close the connection. At least
    one byte is always missing; of a chunked body or one that ends with the connection, at least 16."""

    seed: int
    share: float = 1.0
    keep_bytes: int = 0

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "truncate", "share is in (0, 1]")
        check(self.keep_bytes >= 0, "truncate", "keep_bytes is at least 0")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.share, n, own=own)


@dataclass(frozen=True, slots=True)
class Garble:
    """Damage the body of a share of the JSON answers: ``unparsable`` is not JSON any more, ``changed`` is JSON in
    which one number (or, without numbers, one truth value) is another."""

    seed: int
    share: float = 1.0
    mode: str = "unparsable"

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "garble", "share is in (0, 1]")
        check(self.mode in ("unparsable", "changed"), "garble", "mode is 'unparsable' or 'changed'")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.share, n, own=own)


@dataclass(frozen=True, slots=True)
class LoseHeaders:
    """Leave the headers ``names`` (separated by commas) out of a share of the requests or answers."""

    names: str
    seed: int
    direction: str = "response"
    share: float = 1.0

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "lose_headers", "share is in (0, 1]")
        check(self.direction in ("request", "response"), "lose_headers", "direction is 'request' or 'response'")
        check(bool(self.lowered), "lose_headers", "names is empty; it names headers, separated by commas")
        for name in sorted(self.lowered):
            check(bool(_NAME.fullmatch(name)), "lose_headers", f"{name!r} is no name of a header")
            check(
                name not in FRAMING_HEADERS,
                "lose_headers",
                f"without {name} nobody could tell where the message ends; see truncate",
            )

    @property
    def lowered(self) -> frozenset[str]:
        return frozenset(name.strip().lower() for name in self.names.split(",") if name.strip())

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.share, n, own=own)


Refusing = HttpError | RateLimit


def retry_after(refusing: Refusing) -> str | None:
    """The value of the header Retry-After, in whole seconds; None for none."""
    return None if refusing.retry_after_s is None else str(math.ceil(refusing.retry_after_s))

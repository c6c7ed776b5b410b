"""The toxic that answers requests beyond a rate with 429. It depends on when requests come, unlike all others."""

from __future__ import annotations

import time
from dataclasses import dataclass

from monkeyproof.faults.proxy.hooks import REFUSAL, ProxyResponse, RefusingToxic
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic

TOO_MANY_REQUESTS = 429
Buckets = dict[bool, tuple[float, float]]
"""For users (False) and for the harness (True): how many tokens are left, and since when."""


@toxic("rate_limit", hook=REFUSAL, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class RateLimit(RefusingToxic):
    """Answer 429 to requests beyond ``limit_per_s``: a bucket of ``burst`` tokens, from which each request that
    passes takes one. The harness's own requests have a bucket of their own."""

    limit_per_s: float
    burst: int = 1
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        self.check(0 < self.limit_per_s <= 1e6, "limit_per_s is in (0, 1000000]")
        self.check(1 <= self.burst <= 1_000_000, "burst is at least 1")
        self.check(0 <= self.retry_after_s <= 86_400, "retry_after_s is in 0..86400")

    def new_state(self) -> Buckets:
        return {}

    def refusal(self, active: ActiveToxic, own: bool) -> ProxyResponse | None:
        active.draw(own)
        buckets: Buckets = active.state
        now_s = time.monotonic()
        tokens, at_s = buckets.get(own, (float(self.burst), now_s))
        tokens = min(float(self.burst), tokens + (now_s - at_s) * self.limit_per_s)
        buckets[own] = (tokens - 1 if tokens >= 1 else tokens, now_s)
        return ProxyResponse(TOO_MANY_REQUESTS, self.retry_after_s) if tokens < 1 else None

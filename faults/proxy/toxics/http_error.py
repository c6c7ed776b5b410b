"""The toxic that answers a share of the requests with a failure."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.faults.proxy.hooks import REFUSAL, ProxyResponse, RefusingToxic
from monkeyproof.faults.proxy.request_random import chosen
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("http_error", hook=REFUSAL, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class HttpError(RefusingToxic):
    """Answer a share of the requests with ``status``, without asking the server."""

    probability: float
    status: int
    seed: int
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        self.check(0 < self.probability <= 1, "probability is in (0, 1]")
        self.check(400 <= self.status <= 599, "status is in 400..599")
        self.check(self.retry_after_s is None or self.retry_after_s >= 0, "retry_after_s is >= 0")

    def hits(self, n: int, *, own: bool = False) -> bool:
        return chosen(self.seed, self.probability, n, own=own)

    def refusal(self, active: ActiveToxic, own: bool) -> ProxyResponse | None:
        return ProxyResponse(self.status, self.retry_after_s) if self.hits(active.draw(own), own=own) else None

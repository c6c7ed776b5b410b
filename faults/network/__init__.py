"""Network faults: what a link can do to what passes it. All of them sit on the fault proxy.

``direction`` is "request" (from the client to the server) or "response"; ``share`` is that of the connections, or
of the requests or answers, which the seed chooses.
"""

from __future__ import annotations

from monkeyproof.faults.network.breaks import (
    block,
    block_link,
    half_close,
    hang,
    partition,
    reset_connections,
    swallow,
)
from monkeyproof.faults.network.common import remove_toxic
from monkeyproof.faults.network.damage import corrupt_bytes, garble_answers, lose_headers, truncate_answers
from monkeyproof.faults.network.delays import add_latency, delay_closes, limit_bandwidth, slow_link
from monkeyproof.faults.network.refusals import fail_requests, failing_link, limit_rate

__all__ = [
    "add_latency",
    "block",
    "block_link",
    "corrupt_bytes",
    "delay_closes",
    "fail_requests",
    "failing_link",
    "garble_answers",
    "half_close",
    "hang",
    "limit_bandwidth",
    "limit_rate",
    "lose_headers",
    "partition",
    "remove_toxic",
    "reset_connections",
    "slow_link",
    "swallow",
    "truncate_answers",
]

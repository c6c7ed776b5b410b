"""Sends additional requests with locust, in a process of its own and open loop: it does not wait for answers.

    python -m monkeyproof.faults.support.stressors.traffic --id ID --owner PID:STARTED --for-s S --target FILE \
        --out FILE --rate-per-s R [--spike-s S] [--retries K] [--only N] --seed N

Requests are due by the clock, and each of many users takes the next that is due, so that a slow service gets no
fewer of them. A request that no user was free to send in time is counted as left out, and not sent later. The
program writes its counts to ``--out`` four times a second. It runs at a lower priority than the prober, which it
must not starve.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.config.user_files import GOLDEN_BYTES_MAX, read_text
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.faults.support.stressors.parent_monitor import (
    ParentDeathMonitor,
    exit_now,
    parse_arguments,
    report,
    stressor_parser,
)
from monkeyproof.record.history import write_json
from monkeyproof.runtime import procfs
from monkeyproof.types import Json

RATE_MAX_PER_S = 2000.0
"""Of requests, retries among them."""
USERS_MIN, USERS_MAX = 8, 256
"""How many requests may be in flight at once."""
LATE_S = 0.25
"""A request that would be sent later than this after its due time is left out, and counted."""
WRITE_EVERY_S = 0.25
NICE = 5
ANSWER_WITHIN_S = 5.0
MEMORY_BYTES = 2 * 1024 * 1024 * 1024
"""Of address space, beyond what the libraries take: for answers without end."""


@dataclass(slots=True)
class TrafficCounts:
    """How many requests were due, sent and answered so far."""

    due: int = 0
    sent: int = 0
    """First tries."""
    retries: int = 0
    answered: int = 0
    """With success, first tries and retries."""
    failed: int = 0
    left_out: int = 0
    started_monotonic_s: float = 0.0
    written_monotonic_s: float = 0.0


def due_times_s(rate_per_s: float, spike_s: float) -> Iterator[float]:
    """When each request is due, from the start: evenly; or, with a spike, up to the rate and down, once."""
    if spike_s <= 0:
        yield from (number / rate_per_s for number in itertools.count())
        return
    total = rate_per_s * spike_s / 2  # The area of the triangle.
    for number in range(math.floor(total)):
        rising = math.sqrt(number * spike_s / rate_per_s)
        yield rising if rising <= spike_s / 2 else spike_s - math.sqrt((total - number) * spike_s / rate_per_s)


def due_by(at_s: float, rate_per_s: float, spike_s: float) -> int:
    """How many requests were due by ``at_s``."""
    if spike_s <= 0:
        return math.floor(at_s * rate_per_s) + 1
    total = rate_per_s * spike_s / 2
    if at_s <= spike_s / 2:
        return math.floor(rate_per_s * at_s**2 / spike_s) + 1
    return math.floor(total - rate_per_s * max(0.0, spike_s - at_s) ** 2 / spike_s)


def read_bodies(path: Path, only: int) -> list[bytes]:
    """Bodies of a golden file's questions, or of one of them alone (its number, from 0)."""
    lines = [line for line in read_text(path, "the golden set ", GOLDEN_BYTES_MAX).split("\n") if line.strip()]
    if only >= len(lines):
        raise UsageError(f"there is no question {only}: the golden set has {len(lines)}")
    chosen = lines if only < 0 else [lines[only]]
    return [json.dumps(json.loads(line)["body"], separators=(",", ":")).encode() for line in chosen]


def run(arguments: Any, target: TargetFile, bodies: Sequence[bytes], monitor: ParentDeathMonitor) -> None:
    """Send what is due, until the monitor says that it is over."""
    import gevent
    import numpy as np
    from locust.env import Environment

    order = np.random.default_rng(arguments.seed).permutation(len(bodies)).tolist()
    counts = TrafficCounts()
    due = due_times_s(arguments.rate_per_s, arguments.spike_s)
    shared = SharedWork(counts, due, itertools.cycle([bodies[index] for index in order]), arguments.retries)
    environment = Environment(user_classes=[user_class(target, shared)])
    in_use_bytes = procfs.address_space_bytes(os.getpid())
    resource.setrlimit(
        resource.RLIMIT_AS, (in_use_bytes + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1])
    )
    # gevent's clock is not updated while Python imports: without this, timers set now run out far too early.
    gevent.get_hub().loop.update_now()
    runner = environment.create_local_runner()
    counts.started_monotonic_s = time.monotonic()
    runner.start(min(USERS_MAX, max(USERS_MIN, math.ceil(arguments.rate_per_s))), spawn_rate=USERS_MAX)
    began, written_s = False, -math.inf
    while not monitor.why_over():
        if (now_s := time.monotonic()) - written_s >= WRITE_EVERY_S:
            counts.written_monotonic_s = written_s = now_s
            counts.due = due_by(now_s - counts.started_monotonic_s, arguments.rate_per_s, arguments.spike_s)
            write_json(arguments.out, statistics(counts, environment.stats.total))
        if not began and counts.sent:
            began = True
            report(pid=os.getpid())
        gevent.sleep(0.02)
    # No runner.quit(): it waits for users that wait for answers.


def statistics(counts: TrafficCounts, total: Any) -> dict[str, Json]:
    """The contents of ``--out``. Latencies are locust's, from sending to the answer."""

    def percentile_ms(share: float) -> float:
        return float(total.get_response_time_percentile(share)) if total.num_requests else 0.0

    return {**asdict(counts), "p50_ms": percentile_ms(0.5), "p99_ms": percentile_ms(0.99)}


@dataclass(slots=True)
class SharedWork:
    """What all users share. It needs no lock: gevent's threads take turns only where they wait."""

    counts: TrafficCounts
    due: Iterator[float]
    bodies: Iterator[bytes]
    retries: int

    def next_s(self) -> float | None:
        """When the next request is due that can still be sent in time; None if there is none left."""
        for due_s in self.due:
            at_s = self.counts.started_monotonic_s + due_s
            if time.monotonic() - at_s <= LATE_S:
                return at_s
            self.counts.left_out += 1
        return None


def user_class(target: TargetFile, shared: SharedWork) -> type:
    """A locust user that takes the next request that is due, in a loop."""
    import gevent
    from locust import FastHttpUser, task

    parts = urlsplit(target.predict.url)
    base = f"{parts.scheme}://{parts.netloc}"
    path = target.predict.url[len(base) :] or "/"
    headers = {"Content-Type": "application/json", **target.predict.headers}

    class SurgeUser(FastHttpUser):
        host = base
        network_timeout = ANSWER_WITHIN_S
        connection_timeout = ANSWER_WITHIN_S
        max_redirects = 0

        @task
        def send_next(self) -> None:
            at_s = shared.next_s()
            if at_s is None:
                gevent.sleep(3600)
                return
            gevent.sleep(max(0.0, at_s - time.monotonic()))
            body, counts = next(shared.bodies), shared.counts
            counts.sent += 1
            for again in range(shared.retries + 1):
                counts.retries += again > 0
                if self._answered(body, "retry" if again else "first"):
                    counts.answered += 1
                    return
                counts.failed += 1

        def _answered(self, body: bytes, name: str) -> bool:
            # Each byte that trickles in would begin the network's own limit anew.
            with (
                contextlib.suppress(TimeoutError),
                gevent.Timeout(ANSWER_WITHIN_S, TimeoutError("no whole answer")),
            ):
                send: Any = self.client.request  # Its annotation forgets that a body may be bytes.
                answer = send(target.predict.method, path, name=name, data=body, headers=headers)
                return 200 <= int(answer.status_code or 0) < 300
            return False

    return SurgeUser


def main(argv: Sequence[str] | None = None) -> None:
    found = stressor_parser("monkeyproof.faults.support.stressors.traffic", "Ask a target more than it expects.")
    found.add_argument("--target", type=Path, required=True, metavar="FILE")
    found.add_argument("--out", type=Path, required=True, metavar="FILE")
    found.add_argument("--rate-per-s", type=float, required=True)
    found.add_argument("--spike-s", type=float, default=0.0)
    found.add_argument("--retries", type=int, default=0)
    found.add_argument("--only", type=int, default=-1, metavar="N")
    found.add_argument("--seed", type=int, required=True)
    arguments = parse_arguments(found, argv)
    monitor = ParentDeathMonitor(arguments.owner, arguments.for_s)
    os.nice(NICE)
    try:
        if arguments.rate_per_s * (1 + arguments.retries) > RATE_MAX_PER_S:
            raise UsageError(f"more than {RATE_MAX_PER_S:g} requests a second, retries included")
        target = read_target_file(arguments.target)
        run(arguments, target, read_bodies(target.predict.golden, arguments.only), monitor)
    except (MonkeyproofError, OSError) as error:
        report(error=str(error))
    exit_now()


if __name__ == "__main__":
    main()

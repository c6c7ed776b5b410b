"""Background load: a modest, steady stream of golden questions, all through a trial.

    python -m monkeyproof.probes.load.generator --target FILE --out FOLDER --seed N

Only ever run as a process of its own, until SIGTERM (or until its parent has ended): importing locust patches the
standard library, and its loop starves whatever else is in the process. It writes ``FOLDER/load.json`` at the
start, every second and at the end; a kill loses the last second.

The load is not a measurement: locust's users wait for their answers, so a slow service slows them down. The prober
measures what the users of the service see.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.probes.prober.golden import Golden, read_golden
from monkeyproof.record.history import LOAD_FILE, write_json
from monkeyproof.runtime.process_group import exit_now
from monkeyproof.runtime.process_ref import add_owner
from monkeyproof.types import Json

USERS_MAX = 100
USER_PERIOD_S = 0.5
"""How often one user asks: there are as many as that takes, so that answers of half a second keep the rate."""
NETWORK_TIMEOUT_S = 5.0
WRITE_EVERY_S = 1.0
CHECK_EVERY_S = 0.02


def statistics(total: Any, started_s: float, now_s: float, rate_per_s: float) -> dict[str, Json]:
    """The contents of ``load.json``. ``total`` is locust's entry for all requests; None: there is no load."""

    def percentile_ms(share: float) -> float:
        return float(total.get_response_time_percentile(share)) if total and total.num_requests else 0.0

    requests = int(total.num_requests) if total else 0
    return {
        "requests": requests,
        "failures": int(total.num_failures) if total else 0,
        "requests_per_s": round(requests / max(now_s - started_s, 1e-9), 3),
        "p50_ms": percentile_ms(0.5),
        "p95_ms": percentile_ms(0.95),
        "p99_ms": percentile_ms(0.99),
        "wanted_per_s": rate_per_s,
        "started_monotonic_s": started_s,
        "ended_monotonic_s": now_s,
    }


def user_count(rate_per_s: float) -> int:
    return min(USERS_MAX, max(1, math.ceil(rate_per_s * USER_PERIOD_S)))


def user_class(target: TargetFile, golden: Sequence[Golden], seed: int) -> type:
    """A locust user for the target. All users together ask ``load.rate_per_s`` times a second."""
    import gevent
    from locust import FastHttpUser, task

    from monkeyproof.probes.load.bounded import AsSent, BoundedPool

    parts = urlsplit(target.predict.url)
    path = target.predict.url[len(f"{parts.scheme}://{parts.netloc}") :] or "/"
    order = np.random.default_rng(seed).permutation(len(golden)).tolist()
    bodies = itertools.cycle([golden[index].body for index in order])
    numbers = itertools.count()
    period_s = user_count(target.load.rate_per_s) / target.load.rate_per_s
    begun_s = time.monotonic()

    class LoadUser(FastHttpUser):
        host = f"{parts.scheme}://{parts.netloc}"
        network_timeout = NETWORK_TIMEOUT_S
        connection_timeout = NETWORK_TIMEOUT_S
        max_redirects = 0

        def on_start(self) -> None:
            agent: Any = self.client.client
            agent.response_type, agent.cookiejar = AsSent, None
            agent.clientpool = BoundedPool(
                network_timeout=NETWORK_TIMEOUT_S, connection_timeout=NETWORK_TIMEOUT_S, concurrency=1
            )
            # Each user has its place in the period, so that they do not all ask at once.
            self.first_s = begun_s + next(numbers) / target.load.rate_per_s
            gevent.sleep(self.wait_time())

        def wait_time(self) -> float:
            """Until the next moment of this user's schedule. Those missed while it waited are not made up for."""
            now_s = time.monotonic()
            turns = max(0, math.floor((now_s - self.first_s) / period_s) + 1)
            return self.first_s + turns * period_s - now_s

        @task
        def ask(self) -> None:
            # Each byte that trickles in would begin the network's own limit anew.
            with (
                contextlib.suppress(TimeoutError),
                gevent.Timeout(NETWORK_TIMEOUT_S, TimeoutError("no whole answer")),
            ):
                self.client.request(
                    target.predict.method,
                    path,
                    name="predict",
                    data=next(bodies),
                    headers={"Content-Type": "application/json", **target.predict.headers},
                )

    return LoadUser


def run_load(target: TargetFile, folder: Path, seed: int, stopped: Callable[[], bool]) -> None:
    """Keep the load up until ``stopped()``.

    Raises:
        OSError: the folder cannot be written to.
    """
    golden = read_golden(target.predict.golden)
    rate_per_s = target.load.rate_per_s
    if rate_per_s == 0:
        _write_until(stopped, folder, lambda: None, rate_per_s, time.sleep)
        return
    import gevent
    from locust.env import Environment

    # gevent's clock does not advance while Python imports: without this, timers set now run out far too early.
    gevent.get_hub().loop.update_now()
    environment = Environment(user_classes=[user_class(target, golden, seed)])
    runner = environment.create_local_runner()
    users = user_count(rate_per_s)
    runner.start(users, spawn_rate=users)
    try:
        _write_until(stopped, folder, lambda: environment.stats.total, rate_per_s, gevent.sleep)
    finally:
        runner.quit()


def _write_until(
    stopped: Callable[[], bool],
    folder: Path,
    total: Callable[[], Any],
    rate_per_s: float,
    sleep_s: Callable[[float], object],
) -> None:
    started_s = time.monotonic()
    written_s = -math.inf
    while True:
        now_s, last = time.monotonic(), stopped()
        if last or now_s - written_s >= WRITE_EVERY_S:
            write_json(folder / LOAD_FILE, statistics(total(), started_s, now_s, rate_per_s))
            written_s = now_s
        if last:
            return
        sleep_s(CHECK_EVERY_S)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monkeyproof.probes.load.generator", description="Load a target."
    )
    parser.add_argument("--target", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, required=True, metavar="N")
    add_owner(parser)
    arguments = parser.parse_args(argv)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: signals.append(signum))
    try:
        try:
            target = read_target_file(arguments.target)
            run_load(target, arguments.out, arguments.seed, lambda: bool(signals) or arguments.owner.has_ended())
        except OSError as error:
            raise UsageError(f"{arguments.out}: statistics cannot be written there: {error.strerror}") from None
    except MonkeyproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    exit_now(main())

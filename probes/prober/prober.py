"""The prober: asks questions whose answers are known at a fixed rate, whatever became of those before.

    python -m monkeyproof.probes.prober.prober --target FILE --out FOLDER --anchor MONOTONIC_S --seed N

It runs in a process of its own until SIGTERM (or until its parent has ended), and appends to
``FOLDER/readings.arrows``. Reading k is due at ``start + k / rate``: it is an open loop, so a slow service
slows no question down and hides behind none. Latency counts from when the reading was due.

A slot is *unknown*, never made up, where the prober itself could not observe: it was too late to send (it was
stopped, or starved), or it was not running when an answer may have come. "Too late" is a tenth of the SLO's
latency, between 2 and 50 ms.

A kept-alive connection that dies before a byte of an answer is, for all that a client can see, one that the
server had closed for idleness: the question is asked once more on a new connection, within the same time
limit, as ordinary HTTP clients do. If that goes well the reading is good, with the problem ``reconnected``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from monkeyproof.clock import Anchor
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.probes.prober.answers import Answer, Judge
from monkeyproof.probes.prober.connection import ENDED, Connection
from monkeyproof.probes.prober.connection_monitor import ConnectionMonitor
from monkeyproof.probes.prober.question import Question
from monkeyproof.probes.prober.ticker import Ticker
from monkeyproof.record.history import READINGS_FILE, HistoryWriter
from monkeyproof.record.readings import Reading, ReadingsWriter, SignalState, to_batch
from monkeyproof.runtime.process_group import exit_now
from monkeyproof.runtime.process_ref import ProcessReference, add_owner

FLUSH_S = 0.2
TICK_MAX_S = 0.02
IDLE_CONNECTIONS_MAX = 8
BUSY_MAX_S = 5
NAN = float("nan")


@dataclass(slots=True, eq=False)
class InFlightProbe:
    """A reading that is in flight."""

    slot: int
    due_s: float
    sent_s: float
    golden: int
    connection: Connection | None = None
    connecting: asyncio.Task[None] | None = None
    reconnected: bool = False
    done: bool = False


class Prober:
    """The schedule, what is in flight, and what became of it. All times are CLOCK_MONOTONIC seconds."""

    def __init__(
        self,
        target: TargetFile,
        question: Question,
        judge: Judge,
        writer: ReadingsWriter,
        connection_monitor: ConnectionMonitor,
        seed: int,
    ) -> None:
        self._question, self._judge, self._writer = question, judge, writer
        self._connection_monitor = connection_monitor
        self._order = np.random.default_rng(seed).permutation(len(question.golden)).tolist()
        self._slo_s = target.slo.latency_ms / 1000.0
        self._timeout_s = target.prober.timeout_ms / 1000.0
        period_s = 1.0 / target.prober.rate_per_s
        ticks = math.ceil(period_s / TICK_MAX_S)
        self._tick_ns = round(period_s / ticks * 1e9)
        self._period_s = ticks * self._tick_ns / 1e9  # What the kernel's timer keeps exactly, so nothing drifts.
        self._too_late_s = min(0.05, max(0.002, self._slo_s / 10.0))
        self._in_flight_max = max(8, math.ceil(target.prober.rate_per_s * self._timeout_s) + 8)
        self._idle: list[Connection] = []
        self._asking: dict[Connection, InFlightProbe] = {}
        self._by_deadline: deque[InFlightProbe] = deque()  # Those that are done already are passed over.
        self._in_flight_count = 0
        self._rows: list[Reading] = []
        self._slot = 0
        self._stopping = False
        self._stalled_from_s: float | None = None
        self._ticks_since_stall = 0

    async def run(self, anchor_s: float, owner: ProcessReference) -> None:
        """Probe until ``stop`` is called or the owner has ended; then wait for the probes in flight."""
        loop = asyncio.get_running_loop()
        self._anchor_s = anchor_s
        self._owner = owner
        start_ns = time.monotonic_ns() + 2 * self._tick_ns
        self._start_s = self._alive_s = self._flushed_s = start_ns / 1e9
        self._ended: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._on_surprise)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        ticker = Ticker(start_ns, self._tick_ns)
        loop.add_reader(ticker.fileno(), self._tick, ticker)
        try:
            await self._ended
        finally:
            loop.remove_reader(ticker.fileno())
            ticker.close()
            for connection in self._idle:
                connection.drop()
            self._flush()
            self._connection_monitor.close()

    def stop(self) -> None:
        self._stopping = True

    # The schedule.

    def _tick(self, ticker: Ticker) -> None:
        ticker.acknowledge()
        now_s = time.monotonic()
        self._awake(now_s)
        if self._stalled_from_s is None or self._ticks_since_stall:
            # Answers that came while this process was stopped have all been read by the tick after it woke.
            self._stalled_from_s = None
            self._end_overdue(now_s)
        self._ticks_since_stall += 1
        while not self._stopping and (due_s := self._start_s + self._slot * self._period_s) <= now_s + 1e-6:
            self._begin(due_s, now_s)
            self._slot += 1
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            self._flush()
            if self._owner.has_ended():
                self._stopping = True  # No process is left that reads the file or would end this one.
        if self._stopping and not self._in_flight_count and not self._ended.done():
            self._ended.set_result(None)

    def _awake(self, now_s: float) -> None:
        """Detect that this process was stopped or starved: what comes now may have arrived long before."""
        if now_s - self._alive_s > self._too_late_s + self._tick_ns / 1e9:
            self._stalled_from_s = self._alive_s
            self._ticks_since_stall = 0
        self._alive_s = now_s

    def _end_overdue(self, now_s: float) -> None:
        while self._by_deadline and (
            self._by_deadline[0].done or self._by_deadline[0].due_s + self._timeout_s <= now_s
        ):
            probe = self._by_deadline.popleft()
            if not probe.done:
                self._conclude(probe, None, "timeout", probe.due_s + self._timeout_s)

    # One reading, from its slot to its row.

    def _begin(self, due_s: float, now_s: float) -> None:
        if now_s - due_s > self._too_late_s or self._in_flight_count >= self._in_flight_max:
            unknown = SignalState.UNKNOWN
            at_s = due_s - self._anchor_s
            self._rows.append(Reading(self._slot, at_s, NAN, NAN, unknown, unknown, unknown, problem="missed"))
            return
        probe = InFlightProbe(self._slot, due_s, time.monotonic(), self._order[self._slot % len(self._order)])
        self._by_deadline.append(probe)
        self._in_flight_count += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                self._ask(connection, probe)
                return
            connection.drop()
        self._connect(probe)

    def _connect(self, probe: InFlightProbe) -> None:
        connection = Connection(self)
        probe.connection = connection
        self._asking[connection] = probe
        probe.connecting = asyncio.get_running_loop().create_task(self._open(connection, probe))

    async def _open(self, connection: Connection, probe: InFlightProbe) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: connection, self._question.host, self._question.port)
        except OSError as error:
            now_s = time.monotonic()
            self._awake(now_s)
            problem = "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or "no connection"
            if not probe.done:
                self._conclude(probe, None, problem, now_s)

    def opened(self, connection: Connection) -> None:
        probe = self._asking.get(connection)
        if probe is None:
            connection.drop()  # The time limit was faster.
        else:
            probe.connecting = None  # To cancel it from here on would close what it has opened.
            self._ask(connection, probe)

    def _ask(self, connection: Connection, probe: InFlightProbe) -> None:
        probe.connection = connection
        self._asking[connection] = probe
        connection.ask(self._question.requests[probe.golden])

    def answered(self, connection: Connection, answer: Answer, at_s: float) -> None:
        self._awake(at_s)
        probe = self._asking.pop(connection)
        probe.connection = None
        if connection.reusable and len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle.append(connection)
        else:
            connection.drop()
        self._conclude(probe, answer, "", at_s)

    def broken(self, connection: Connection, problem: str, at_s: float) -> None:
        self._awake(at_s)
        if problem in ENDED and self._stalled_from_s is None:  # Else it is unknown when it ended.
            self._connection_monitor.lost(at_s)
        if connection in self._idle:
            self._idle.remove(connection)  # The server closed it: no harm done.
            return
        probe = self._asking.pop(connection)
        maybe_idle = connection.uses > 1 and not connection.received_bytes
        if maybe_idle and not probe.reconnected and at_s < probe.due_s + self._timeout_s:
            probe.reconnected = True
            self._connect(probe)
        else:
            self._conclude(probe, None, problem, at_s)

    def _conclude(self, probe: InFlightProbe, answer: Answer | None, problem: str, at_s: float) -> None:
        probe.done = True
        self._in_flight_count -= 1
        if probe.connection is not None:
            self._asking.pop(probe.connection, None)
            probe.connection.drop()
        if probe.connecting is not None:
            probe.connecting.cancel()
        latest_s = at_s - probe.due_s
        earliest_s = latest_s if self._stalled_from_s is None else min(at_s, self._stalled_from_s) - probe.due_s
        if answer is not None and earliest_s >= self._timeout_s:
            answer, problem, at_s = None, "timeout", probe.due_s + self._timeout_s
        fast = _within(earliest_s, latest_s, self._slo_s) if problem != "timeout" else SignalState.BAD
        available, correct = SignalState.BAD, SignalState.UNKNOWN
        tags: dict[str, Any] = {}
        if answer is not None:
            judged = self._judge(answer, self._question.golden[probe.golden])
            correct, problem = judged.correct, judged.problem
            tags = {"degraded": judged.degraded, "model_version": judged.model_version, "status": answer.status}
            if answer.ok:
                available = _within(earliest_s, latest_s, self._timeout_s)
            if SignalState.UNKNOWN in (fast, available):
                problem = problem or "prober was stopped"
            elif probe.reconnected and not problem:
                problem = "reconnected"
        self._rows.append(
            Reading(
                probe.slot,
                probe.due_s - self._anchor_s,
                probe.sent_s - self._anchor_s,
                at_s - self._anchor_s,
                available,
                fast,
                correct,
                problem=problem,
                **tags,
            )
        )

    def _flush(self) -> None:
        if self._rows:
            self._writer.write(self._rows)
            self._rows.clear()
        self._connection_monitor.flush()

    def _on_surprise(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        """An error in a callback ends the prober: half of the numbers would be worse than none."""
        if not self._ended.done():
            self._ended.set_exception(context.get("exception") or RuntimeError(context["message"]))


def _within(earliest_s: float, latest_s: float, limit_s: float) -> SignalState:
    """Whether something that happened between two times happened within a limit."""
    if latest_s <= limit_s:
        return SignalState.GOOD
    return SignalState.BAD if earliest_s > limit_s else SignalState.UNKNOWN


def _go_first() -> None:
    """Be scheduled before others where that is allowed: it needs little, and must not be late.

    Measured with two busy loops on two cores: slots sent 15 ms late (p99) without, 0.15 ms with. A prober that
    never paused would take a core from all others, so the kernel ends one that does not pause for seconds.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (BUSY_MAX_S * 10**6, BUSY_MAX_S * 10**6))
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monkeyproof.probes.prober.prober", description="Probe a target."
    )
    parser.add_argument("--target", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--anchor", type=float, required=True, metavar="MONOTONIC_S")
    parser.add_argument("--seed", type=int, required=True, metavar="N")
    add_owner(parser)
    arguments = parser.parse_args(argv)
    try:
        target = read_target_file(arguments.target)
        question, judge = Question.of(target), Judge(target.predict, target.path)
        try:
            writer = ReadingsWriter(arguments.out / READINGS_FILE)
            history = HistoryWriter(arguments.out, Anchor(arguments.anchor, ""), "prober")
        except OSError as error:
            raise UsageError(f"{arguments.out}: readings cannot be written there: {error.strerror}") from None
    except MonkeyproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    # The first batch costs 150 ms of lazy imports: paid here, not while slots are due.
    to_batch([Reading(0, 0.0, NAN, NAN, SignalState.UNKNOWN, SignalState.UNKNOWN, SignalState.UNKNOWN)])
    # What was imported lives to the end. Without it a full collection takes tens of milliseconds; with it, well
    # under one, so the collector can stay on.
    gc.collect()
    gc.freeze()
    _go_first()
    try:
        connection_monitor = ConnectionMonitor(question.host, question.port, history)
        prober = Prober(target, question, judge, writer, connection_monitor, arguments.seed)
        uvloop.run(prober.run(arguments.anchor, arguments.owner))
        writer.close()
    except OSError as error:
        print(f"{arguments.out}: readings can no longer be written there: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())

"""The abort monitor: ends a trial when a condition of the target file's ``abort_if`` holds.

It is a process of its own beside the trial, so that no activity can keep it from checking: one that hangs, that
holds the interpreter, or that patches it. It sends the trial's worker SIGTERM, upon which the worker ends in
order. It kills a worker that has not begun to revert within ``REVERT_BEGINS_WITHIN_S``; the watchdog then
reverts what is open.

In histories and log files its name is ``sentry``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

import httpx

from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.limits import AbortIf, public_url
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import EXIT_OK, MonkeyproofError
from monkeyproof.probes.abort.conditions import (
    ANSWER_WITHIN_S,
    MAX_ANSWER_BYTES,
    Condition,
    bad_s,
    readings_conditions,
    why_metric,
    why_unhealthy,
)
from monkeyproof.probes.follower import Follower
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import DISCARDED_DIR, READINGS_FILE, HistoryWriter, Kind, events_in
from monkeyproof.record.readings import Readings
from monkeyproof.record.trial_end import REVERT_BEGINS_WITHIN_S, has_begun_to_end
from monkeyproof.runtime.process_group import exit_now
from monkeyproof.runtime.process_ref import ProcessReference, add_owner, send_heartbeat

EVERY_S = 1.0
CHECK_EVERY_S = 0.25
WRITTEN_WITHIN_S = 0.75
"""The prober writes what it has a few times a second."""


class PolledCondition:
    """A condition that a server decides, polled every second in a thread of its own.

    What counts is when the server last reported that all is well: one that hangs, or answers a byte at a time,
    holds up its thread and nothing else.
    """

    def __init__(self, condition: AbortIf) -> None:
        self._condition = condition
        self._well_s = time.monotonic()
        self._why = ""
        self.answered = False
        threading.Thread(target=self._poll_forever, daemon=True).start()

    def why(self, schedule: ProbeSchedule | None, now_s: float) -> str:  # noqa: ARG002
        if self._why:
            return self._why
        silent_s = time.monotonic() - self._well_s
        if silent_s <= EVERY_S + ANSWER_WITHIN_S:
            return ""
        kind = "health_url" if self._condition.health_url else "prometheus"
        url = public_url(str(self._condition.health_url or self._condition.prometheus))
        return f"{kind}: {url} has not answered for {silent_s:.1f} s"

    def _poll_forever(self) -> None:
        with httpx.Client(timeout=ANSWER_WITHIN_S, trust_env=False) as client:
            while not self._why:
                begun_s = time.monotonic()
                try:
                    why = self._ask(client)
                except Exception as error:  # Whatever a foreign answer does to the client, it is no "all is well".
                    url = public_url(str(self._condition.health_url or self._condition.prometheus))
                    why = f"{url} does not answer: {type(error).__name__}"
                if not why:
                    self._well_s = time.monotonic()
                self._why = why
                self.answered = True
                time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun_s)))

    def _ask(self, client: httpx.Client) -> str:
        one = self._condition
        headers = dict(one.headers or {})
        if one.health_url is not None:
            with client.stream("GET", one.health_url, headers=headers) as answer:
                return why_unhealthy(one, answer.status_code)
        url = f"{str(one.prometheus).rstrip('/')}/api/v1/query"
        with client.stream("GET", url, params={"query": str(one.query)}, headers=headers) as answer:
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return f"prometheus: {public_url(url)} answers with more than {MAX_ANSWER_BYTES} bytes"
            return why_metric(one, answer.status_code, body)


def bad_before_s(folder: Path) -> float:
    """Seconds without good answers in the campaign's earlier trials, also in those that ``--resume`` discarded.

    A folder outside a campaign has none.
    """
    campaign = folder.parent.parent
    if not (campaign / "campaign.json").exists():
        return 0.0
    spent_s = 0.0
    for trial in [*folder.parent.iterdir(), *(campaign / DISCARDED_DIR).glob("*")]:
        if trial != folder and (trial / READINGS_FILE).exists():
            schedule = ProbeSchedule.of(Readings.read(trial / READINGS_FILE))
            if schedule is not None:
                spent_s += bad_s(schedule, float(schedule.scheduled_s[-1]), 0.0)
    return spent_s


def watch(file: TargetFile, folder: Path, history: HistoryWriter, worker: ProcessReference) -> None:
    """Check the conditions until one holds, and then end the worker. Returns when the worker has ended."""
    polled = [PolledCondition(one) for one in file.abort_if if one.health_url or one.prometheus]
    lag_s = file.prober.timeout_ms / 1000 + WRITTEN_WITHIN_S
    conditions: list[Condition] = [
        *polled,
        *readings_conditions(
            file.abort_if,
            objective=file.slo.objective,
            before_s=bad_before_s(folder),
            from_s=history.now_s(),
            lag_s=lag_s,
        ),
    ]
    reported = False
    with Follower(folder) as follower:
        while not _has_ended(worker):
            schedule = follower.poll()
            why = next((why for one in conditions if (why := one.why(schedule, history.now_s()))), "")
            if why:
                end(folder, history, worker, f"abort_if: {why}")
                return
            if not reported and all(one.answered for one in polled):
                reported = True
                history.event(Kind.BOUNDS_WATCHED, conditions=len(conditions))


def end(folder: Path, history: HistoryWriter, worker: ProcessReference, why: str) -> None:
    """End the worker, in order if it can."""
    history.event(Kind.TRIAL_ABORTED, folder.name, why=why)
    aborted_s, seen, ending = history.now_s(), len(events_in(folder)), False
    worker.send_signal(signal.SIGTERM)
    while not _has_ended(worker):
        ending = ending or has_begun_to_end(folder, seen)
        if not ending and history.now_s() - aborted_s > REVERT_BEGINS_WITHIN_S:
            why = f"its worker (pid {worker.pid}) did not end within {REVERT_BEGINS_WITHIN_S:g} s of SIGTERM"
            history.event(Kind.TRIAL_ABORTED, folder.name, why=f"{why}; killed")
            worker.send_signal(signal.SIGKILL)


def _has_ended(worker: ProcessReference) -> bool:
    send_heartbeat()
    return worker.has_ended(CHECK_EVERY_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="monkeyproof.probes.abort.monitor", description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="the target file")
    parser.add_argument("--out", type=Path, required=True, help="the trial's folder")
    parser.add_argument("--anchor", type=float, required=True, help="CLOCK_MONOTONIC at which the trial began")
    add_owner(parser, required=True)
    arguments = parser.parse_args()
    worker: ProcessReference = arguments.owner
    if worker.has_ended():
        return EXIT_OK
    history = HistoryWriter(arguments.out, Anchor(arguments.anchor, SystemClock().utc().isoformat()), "sentry")
    try:
        watch(read_target_file(arguments.target), arguments.out, history, worker)
    except MonkeyproofError as error:
        # The conditions cannot be checked any more, so the trial may not go on.
        print(error, file=sys.stderr)
        end(arguments.out, history, worker, f"abort_if cannot be watched: {error}")
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    exit_now(main())

"""The Elephant's process: ``python -m monkeyproof.healing.elephant --target FILE --out FOLDER --anchor S``.

The MAPE-K loop of the Elephant: monitor (telemetry.py), analyse (detect.py, diagnose.py), plan (policy.py),
execute (actuators.py, remedies/), over shared knowledge (reference.py); controller.py runs one step of it for
each sample. It takes four samples a second until SIGTERM, or until the process that started it has ended. What it
did to the target stays in force when it ends: the trial resets the target.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.errors import EXIT_OK, MonkeyproofError
from monkeyproof.healing.actuators import Actuators, Vectors, read_known
from monkeyproof.healing.controller import Controller
from monkeyproof.healing.reference import TargetReference
from monkeyproof.healing.telemetry import TICK_S, TelemetryCollector, in_thread
from monkeyproof.record.history import HistoryWriter
from monkeyproof.runtime.process_group import exit_now
from monkeyproof.runtime.process_ref import ProcessReference, add_owner
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Features, Target


async def run_loop(
    collector: TelemetryCollector, controller: Controller, stop: asyncio.Event, owner: ProcessReference
) -> None:
    """Take one sample and one step a tick, until ``stop`` is set or the owner has ended."""
    due_s = time.monotonic()
    async with collector:
        while not stop.is_set() and not owner.has_ended():
            late_ms = (time.monotonic() - due_s) * 1000.0
            controller.step(await collector.sample(late_ms))
            # Missed ticks are not made up for: they would only delay the ones to come.
            due_s = max(due_s + TICK_S, time.monotonic())
            try:
                async with asyncio.timeout(due_s - time.monotonic()):
                    await stop.wait()
            except TimeoutError:
                continue


async def heal(observed: Target, controlled: Target, history: HistoryWriter, owner: ProcessReference) -> None:
    """Watch one target and act on it, over two connections: a slow action must not delay the samples."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    collector = TelemetryCollector(observed)

    def read() -> Vectors:
        return read_known(controlled.find(Features), collector.canaries)

    def prepare(reference: TargetReference) -> Actuators:
        known = read()
        return Actuators(controlled, clock, collector.canaries, known, reference.version, reference.accuracy)

    in_thread(read)  # The first call loads the store's client; the second one must not keep the loop waiting.
    await run_loop(collector, Controller(history, prepare, in_thread, clock), stop, owner)


def main() -> int:
    parser = argparse.ArgumentParser(prog="monkeyproof.healing.elephant", description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="the target file")
    parser.add_argument("--out", type=Path, required=True, help="the trial's folder")
    parser.add_argument("--anchor", type=float, required=True, help="CLOCK_MONOTONIC at which the trial began")
    parser.add_argument("--wait", action="store_true", help="take the first sample when standard input ends")
    add_owner(parser)
    arguments = parser.parse_args()
    history = HistoryWriter(arguments.out, Anchor(arguments.anchor, SystemClock().utc().isoformat()), "elephant")
    try:
        observed, controlled = open_target(arguments.target), open_target(arguments.target)
        if arguments.wait:
            # The samples from here on become its reference of what is usual.
            sys.stdin.buffer.read()
        asyncio.run(heal(observed, controlled, history, arguments.owner))
    except MonkeyproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    exit_now(main())

"""The Elephant's process: ``python -m monkeyproof.healing.elephant --target FILE --out FOLDER --anchor S``.

It looks at its target four times a second until SIGTERM, or until the process that it was started for is gone.
What it did to the target stays as it is when it ends: whoever ran the trial puts the target back.
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
from monkeyproof.healing.controller import Controller
from monkeyproof.healing.reference import Reference
from monkeyproof.healing.remedies import Actuators, Vectors, read_known
from monkeyproof.healing.telemetry import TICK_S, TelemetryCollector, in_thread
from monkeyproof.record.history import HistoryWriter
from monkeyproof.runtime.process_group import leave
from monkeyproof.runtime.process_ref import ProcessReference, add_owner
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Features, Target


async def watch(eyes: TelemetryCollector, mind: Controller, stop: asyncio.Event, owner: ProcessReference) -> None:
    """Look and think, once a tick, until told to stop or orphaned."""
    due_s = time.monotonic()
    async with eyes:
        while not stop.is_set() and not owner.has_ended():
            late_ms = (time.monotonic() - due_s) * 1000.0
            mind.step(await eyes.look(late_ms))
            # Ticks that were missed are not made up for: they would only crowd the ones to come.
            due_s = max(due_s + TICK_S, time.monotonic())
            try:
                async with asyncio.timeout(due_s - time.monotonic()):
                    await stop.wait()
            except TimeoutError:
                continue


async def heal(seen: Target, handled: Target, history: HistoryWriter, owner: ProcessReference) -> None:
    """Watch one target and act on it. Two connections: a slow action must not blind the eyes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    eyes = TelemetryCollector(seen)

    def read() -> Vectors:
        return read_known(handled.find(Features), eyes.canaries)

    def prepare(reference: Reference) -> Actuators:
        known = read()
        return Actuators(handled, clock, eyes.canaries, known, reference.version, reference.accuracy)

    in_thread(read)  # The first call loads the store's client; the second one must not keep the loop waiting.
    await watch(eyes, Controller(history, prepare, in_thread, clock), stop, owner)


def main() -> int:
    parser = argparse.ArgumentParser(prog="monkeyproof.healing.elephant", description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="the target file")
    parser.add_argument("--out", type=Path, required=True, help="the trial's folder")
    parser.add_argument("--anchor", type=float, required=True, help="CLOCK_MONOTONIC at which the trial began")
    parser.add_argument("--wait", action="store_true", help="begin to look when standard input ends")
    add_owner(parser)
    arguments = parser.parse_args()
    history = HistoryWriter(arguments.out, Anchor(arguments.anchor, SystemClock().utc().isoformat()), "elephant")
    try:
        seen, handled = open_target(arguments.target), open_target(arguments.target)
        if arguments.wait:
            # What it sees from here on becomes its reference of what is usual.
            sys.stdin.buffer.read()
        asyncio.run(heal(seen, handled, history, arguments.owner))
    except MonkeyproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    leave(main())

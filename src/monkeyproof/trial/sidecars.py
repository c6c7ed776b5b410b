"""The processes beside a trial: the prober, the load and the healer, on from before the baseline to the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import Anchor, SystemClock, wait_for
from monkeyproof.errors import UsageError
from monkeyproof.record import history
from monkeyproof.record.history import Kind
from monkeyproof.runtime import trial_mark
from monkeyproof.runtime.process_group import ProcessGroup, last_log_line
from monkeyproof.runtime.process_ref import SILENT_S, Heartbeat, reference_text
from monkeyproof.types import Json

HEALERS = {"none": None, "elephant": "monkeyproof.healing.elephant"}
"""Arms, and the module of each one's healer."""

START_WITHIN_S = 20.0
LOOK_EVERY_S = 0.02
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's linear algebra, which none of them needs, starts a thread a core: a tenth of what their start costs."""


class Sidecars:
    """Starts them, waits until each one does its work, and ends them so that nothing they saw is lost.

    They start at once, for starting takes most of a second; but the healer looks at nothing before ``let_heal``.
    """

    def __init__(self, folder: Path, target_file: Path, seed: int, arm: str) -> None:
        """The trial begins here, with its folder.

        Raises:
            UsageError: there is no such arm.
        """
        if arm not in HEALERS:
            raise UsageError(f"no healer {arm!r}; there are: {', '.join(HEALERS)}")
        paths.make_private(folder.parent)
        folder.mkdir(mode=0o700)
        self._folder = folder
        self.anchor = Anchor.now(SystemClock())
        self._group = ProcessGroup()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._hold_back = self._beats = -1
        self._sentry: Heartbeat | None = None
        try:
            self._start_all(target_file, seed, arm)
        except OSError:  # The disk takes no log of theirs.
            self.discard()
            raise

    def _start_all(self, target_file: Path, seed: int, arm: str) -> None:
        common = ["--target", str(target_file), "--out", str(self._folder)]
        anchored = ["--anchor", repr(self.anchor.monotonic_s)]
        seeded = ["--seed", str(seed)]
        # Slowest first.
        self._start("load", "monkeyproof.probes.load.generator", [*common, *seeded])
        if healer := HEALERS[arm]:
            wait, self._hold_back = os.pipe()
            self._start("healer", healer, [*common, *anchored, "--wait"], stdin=wait)
            os.close(wait)
        self._start("prober", "monkeyproof.probes.prober.prober", [*common, *anchored, *seeded])

    def _start(self, name: str, module: str, arguments: list[str], stdin: int = subprocess.DEVNULL) -> None:
        self._processes[name] = self._group.start(
            [sys.executable, "-m", module, *arguments, "--owner", reference_text(os.getpid())],
            log=self._folder / f"{name}.log",
            env=NO_THREADS,
            stdin=stdin,
        )

    def let_heal(self) -> None:
        """The target is as it should be: the healer may look, learn what is usual, and act. Idempotent."""
        if self._hold_back >= 0:
            os.close(self._hold_back)
            self._hold_back = -1

    def await_working(self) -> float:
        """Wait for the first readings, the first statistics and the healer's word that it is ready.

        Returns:
            Since when, in the trial's time, the load and the prober have both been at work.

        Raises:
            UsageError: one of them died, or took too long; names its log.
        """
        started = wait_for(
            lambda: bool(self.dead()) or not self._missing(), within_s=START_WITHIN_S, every_s=LOOK_EVERY_S
        )
        late = list(self.dead()) or ([] if started else self._missing())
        if late:
            log = self._folder / f"{late[0]}.log"
            raise UsageError(f"the {late[0]} did not start: {last_log_line(log)}; see {log}")
        load = json.loads((self._folder / history.LOAD_FILE).read_bytes())
        return max(float(load["started_monotonic_s"]) - self.anchor.monotonic_s, *self._first_reading_s())

    def stand_sentry(self, target_file: Path) -> None:
        """Have the target's ``abort_if`` watched from here on, and wait until it is.

        Raises:
            UsageError: it does not start.
        """
        anchored = ["--anchor", repr(self.anchor.monotonic_s)]
        arguments = ["--target", str(target_file), "--out", str(self._folder), *anchored]
        self._beats, its = os.pipe()
        try:
            self._start("sentry", "monkeyproof.probes.abort.monitor", arguments, stdin=its)
        finally:
            os.close(its)
        if not wait_for(self._sentry_stands, within_s=START_WITHIN_S, every_s=LOOK_EVERY_S):
            log = self._folder / "sentry.log"
            raise UsageError(f"the sentry did not start: {last_log_line(log)}; see {log}")
        self._sentry = Heartbeat(self._beats)

    def _sentry_stands(self) -> bool:
        events = history.events_in(self._folder)
        return any(event.kind in (Kind.BOUNDS_WATCHED, Kind.TRIAL_ABORTED) for event in events)

    def why_unwatched(self) -> str:
        """Why nobody watches the target's ``abort_if``, if nobody does who should; else ""."""
        process = self._processes.get("sentry")
        if process is None:
            return ""
        if process.poll() is not None:
            return f"abort_if is not watched any more: {last_log_line(self._folder / 'sentry.log')}"
        if self._sentry is not None and self._sentry.silent_s() > SILENT_S:
            process.kill()  # As good as dead; and nothing may be left that stands still.
            return f"abort_if is not watched any more: the sentry (pid {process.pid}) stands still"
        return ""

    def dead(self) -> dict[str, str]:
        """Those that ended by themselves, and how. None of them should before it is told to."""
        return {
            name: f"status {process.returncode}"
            for name, process in self._processes.items()
            if process.poll() is not None
        }

    def why_blind(self) -> str:
        """Why the trial cannot be judged any more, if one of them died; else ""."""
        return "; ".join(f"the {name} died ({why})" for name, why in self.dead().items() if name != "sentry")

    def _missing(self) -> list[str]:
        """Those that have not shown yet that they work."""
        missing = []
        if not self._first_reading_s():
            missing.append("prober")
        if not (self._folder / history.LOAD_FILE).exists():
            missing.append("load")
        if "healer" in self._processes:
            events = history.events_in(self._folder)
            if not any(event.kind is Kind.HEALER_READY for event in events):
                missing.append("healer")
        return missing

    def _first_reading_s(self) -> list[float]:
        """When the first reading was due; empty as long as none is written."""
        # Here, because importing it takes longer than starting all of them.
        from monkeyproof.record.readings import Readings

        with contextlib.suppress(UsageError):  # No file yet.
            return [float(at_s) for at_s in Readings.read(self._folder / history.READINGS_FILE).scheduled_s[:1]]
        return []

    def end(self, *names: str) -> None:
        """End some of them, all at once, giving each time to write what it holds. Idempotent."""
        ending = [self._processes.pop(name) for name in names if name in self._processes]
        for process in ending:
            self._group.ask_to_end(process)
        for process in ending:
            self._group.end(process, grace_s=5.0)

    def close(self) -> None:
        """End what is left. Idempotent."""
        self.end(*self._processes)
        self._group.close()
        self.let_heal()  # Nobody: only the descriptor is left of it.
        if self._beats >= 0:
            os.close(self._beats)
            self._beats = -1

    def discard(self) -> None:
        """Close, and leave no folder: nothing was tried."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_observers(plan: Mapping[str, Json]) -> Sidecars:
    """Those of one trial; ``plan`` as the worker's file has it.

    Raises:
        UsageError: there is no such arm.
    """
    target = Path(plan["target"]) if plan["target"] else paths.target_dir() / "target.yaml"
    # They are the first that a trial starts.
    trial_mark.set_mark(Path(plan["folder"]).resolve())
    return Sidecars(Path(plan["folder"]).resolve(), target, plan["seed"], plan["arm"])

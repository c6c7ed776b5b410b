"""The sidecars of a trial: prober, load and healer processes that run from before the baseline to the end."""

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
"""Arms, and the module of the healer of each."""

START_WITHIN_S = 20.0
CHECK_EVERY_S = 0.02
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's linear algebra, which no sidecar needs, starts one thread per core: a tenth of their start-up cost."""


class Sidecars:
    """Starts the sidecars, waits until each one works, and ends them so that no data of theirs is lost.

    They start at once, because a start takes most of a second; but the healer waits for ``release_healer``.
    """

    def __init__(self, folder: Path, target_file: Path, seed: int, arm: str) -> None:
        """Create the trial's folder, with which the trial begins, and start the sidecars.

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
        self._abort_monitor: Heartbeat | None = None
        try:
            self._start_all(target_file, seed, arm)
        except OSError:  # For instance, their logs cannot be written.
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

    def release_healer(self) -> None:
        """Let the healer observe, learn its reference and act, now that the target is reset. Idempotent."""
        if self._hold_back >= 0:
            os.close(self._hold_back)
            self._hold_back = -1

    def wait_until_working(self) -> float:
        """Wait for the first readings, the first statistics and the healer's ready event.

        Returns:
            The time, in seconds of the trial, from which both load and prober have worked.

        Raises:
            UsageError: a sidecar died, or took too long; names its log.
        """
        started = wait_for(
            lambda: bool(self.dead()) or not self._missing(), within_s=START_WITHIN_S, every_s=CHECK_EVERY_S
        )
        late = list(self.dead()) or ([] if started else self._missing())
        if late:
            log = self._folder / f"{late[0]}.log"
            raise UsageError(f"the {late[0]} did not start: {last_log_line(log)}; see {log}")
        load = json.loads((self._folder / history.LOAD_FILE).read_bytes())
        return max(float(load["started_monotonic_s"]) - self.anchor.monotonic_s, *self._first_reading_s())

    def start_abort_monitor(self, target_file: Path) -> None:
        """Start the process that checks the target's ``abort_if``, and wait until it works.

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
        if not wait_for(self._abort_monitor_works, within_s=START_WITHIN_S, every_s=CHECK_EVERY_S):
            log = self._folder / "sentry.log"
            raise UsageError(f"the abort monitor did not start: {last_log_line(log)}; see {log}")
        self._abort_monitor = Heartbeat(self._beats)

    def _abort_monitor_works(self) -> bool:
        events = history.events_in(self._folder)
        return any(event.kind in (Kind.BOUNDS_WATCHED, Kind.TRIAL_ABORTED) for event in events)

    def why_unwatched(self) -> str:
        """Why the abort monitor, if there is one, no longer checks the target's ``abort_if``; else ""."""
        process = self._processes.get("sentry")
        if process is None:
            return ""
        if process.poll() is not None:
            return f"abort_if is no longer checked: {last_log_line(self._folder / 'sentry.log')}"
        if self._abort_monitor is not None and self._abort_monitor.silent_s() > SILENT_S:
            process.kill()  # A stopped process would be residue.
            return f"abort_if is no longer checked: the abort monitor (pid {process.pid}) is stopped or hung"
        return ""

    def dead(self) -> dict[str, str]:
        """The sidecars that ended by themselves, and their exit status. None of them should."""
        return {
            name: f"status {process.returncode}"
            for name, process in self._processes.items()
            if process.poll() is not None
        }

    def why_blind(self) -> str:
        """Why the trial can no longer be judged, if a sidecar died; else ""."""
        return "; ".join(f"the {name} died ({why})" for name, why in self.dead().items() if name != "sentry")

    def _missing(self) -> list[str]:
        """The sidecars that have not yet shown that they work."""
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
        """The time at which the first reading was due; empty while there is none."""
        # Imported here, because the import takes longer than the start of all sidecars.
        from monkeyproof.record.readings import Readings

        with contextlib.suppress(UsageError):  # No file yet.
            return [float(at_s) for at_s in Readings.read(self._folder / history.READINGS_FILE).scheduled_s[:1]]
        return []

    def end(self, *names: str) -> None:
        """End the named sidecars, all at once, with time for each to write its data. Idempotent."""
        ending = [self._processes.pop(name) for name in names if name in self._processes]
        for process in ending:
            self._group.ask_to_end(process)
        for process in ending:
            self._group.end(process, grace_s=5.0)

    def close(self) -> None:
        """End the remaining sidecars. Idempotent."""
        self.end(*self._processes)
        self._group.close()
        self.release_healer()  # The healer has ended; this closes the descriptor.
        if self._beats >= 0:
            os.close(self._beats)
            self._beats = -1

    def discard(self) -> None:
        """Close, and delete the folder: the trial did not begin."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start_sidecars(plan: Mapping[str, Json]) -> Sidecars:
    """Start the sidecars of one trial; ``plan`` has the keys of ``TrialPlan``.

    Raises:
        UsageError: there is no such arm.
    """
    target = Path(plan["target"]) if plan["target"] else paths.target_dir() / "target.yaml"
    # The sidecars are the first processes of a trial.
    trial_mark.set_mark(Path(plan["folder"]).resolve())
    return Sidecars(Path(plan["folder"]).resolve(), target, plan["seed"], plan["arm"])

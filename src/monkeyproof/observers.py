"""The processes beside a trial: the prober, the load and the healer, on from before the baseline to the end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from monkeyproof import history
from monkeyproof.clock import Anchor, wait_for
from monkeyproof.errors import UsageError
from monkeyproof.history import Kind
from monkeyproof.process import ProcessGroup, last_line
from monkeyproof.readings import Readings

HEALERS = {"none": None, "elephant": "monkeyproof.healing.elephant"}
"""Arms, and the module of each one's healer."""

START_WITHIN_S = 20.0


class Observers:
    """Starts them, waits until each one does its work, and ends them so that nothing they saw is lost."""

    def __init__(self, folder: Path, target_file: Path, anchor: Anchor, seed: int, arm: str) -> None:
        self._folder = folder
        self._healer = HEALERS[arm]
        self._group = ProcessGroup()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        common = ["--target", str(target_file), "--out", str(folder)]
        anchored = ["--anchor", repr(anchor.monotonic_s)]
        seeded = ["--seed", str(seed)]
        self._start("load", "monkeyproof.probes.load", [*common, *seeded])
        self._start("prober", "monkeyproof.probes.prober", [*common, *anchored, *seeded])
        if self._healer:
            self._start("healer", self._healer, [*common, *anchored])

    def _start(self, name: str, module: str, arguments: list[str]) -> None:
        self._processes[name] = self._group.start(
            [sys.executable, "-m", module, *arguments], log=self._folder / f"{name}.log"
        )

    def await_working(self) -> None:
        """Wait for the first readings, the first statistics and the healer's word that it is ready.

        Raises:
            UsageError: one of them died, or took too long; names its log.
        """
        started = wait_for(lambda: bool(self.dead()) or not self._missing(), within_s=START_WITHIN_S, every_s=0.05)
        late = list(self.dead()) or ([] if started else self._missing())
        if late:
            log = self._folder / f"{late[0]}.log"
            raise UsageError(f"the {late[0]} did not start: {last_line(log)}; see {log}")

    def dead(self) -> dict[str, str]:
        """Those that ended by themselves, and how. None of them should before it is told to."""
        return {
            name: f"status {process.returncode}"
            for name, process in self._processes.items()
            if process.poll() is not None
        }

    def _missing(self) -> list[str]:
        """Those that have not shown yet that they work."""
        missing = []
        if not self._has_readings():
            missing.append("prober")
        if not (self._folder / history.LOAD_FILE).exists():
            missing.append("load")
        if self._healer:
            events = history.parse_events((self._folder / history.EVENTS_FILE).read_bytes())
            if not any(event.kind is Kind.HEALER_READY for event in events):
                missing.append("healer")
        return missing

    def _has_readings(self) -> bool:
        with contextlib.suppress(UsageError):  # No file yet.
            return len(Readings.read(self._folder / history.READINGS_FILE)) > 0
        return False

    def end_healer(self) -> None:
        """No healer acts while the harness itself puts the target back."""
        if self._healer:
            self._group.end(self._processes.pop("healer"), grace_s=5.0)

    def close(self) -> None:
        """End what is left, giving each time to write what it holds."""
        for process in self._processes.values():
            self._group.end(process, grace_s=5.0)
        self._processes.clear()
        self._group.close()

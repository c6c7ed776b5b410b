"""Follows a trial's folder while its readings and events are being written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import READINGS_FILE, Event, events_in
from monkeyproof.record.readings import Readings, ReadingsTail


class Follower:
    """The readings of a folder, as far as they are written. The file need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / READINGS_FILE
        self._tail: ReadingsTail | None = None
        self._file: BinaryIO | None = None
        self._slots: ProbeSchedule | None = None

    @property
    def readings(self) -> Readings:
        """Every reading that ``poll`` has taken in, in the order of their slots."""
        return Readings.of(()) if self._tail is None else self._tail.readings

    def poll(self) -> ProbeSchedule | None:
        """Take in new readings and return the schedule so far. None: too few readings to know the schedule."""
        if self._tail is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return None
            self._tail = ReadingsTail(self._file)
        if self._tail.poll():
            self._slots = ProbeSchedule.of(self._tail.readings)
        return self._slots

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def events_of(folder: Path) -> list[Event]:
    """The events so far, in order of time.

    Raises:
        UsageError: a whole line is not an event.
    """
    return sorted(events_in(folder), key=lambda event: event.t_s)

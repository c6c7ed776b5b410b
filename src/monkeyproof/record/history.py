"""The history of a trial: one append-only folder, which every room reads or writes and which explains itself.

    trial.json      what the trial was: seed, experiment, arm, digests, versions, machine, clock anchor
    events.jsonl    what happened: one object a line, flushed as it happens
    readings.arrows what the users saw: one row a scheduled probe (see monkeyproof.record.readings)
    load.json       statistics of the background load
    undo.jsonl      the undo log (see monkeyproof.undo.log)
    journal.json    Chaos Toolkit's own journal
    experiment.json the experiment as it was run, without its secrets, where its faults are not monkeyproof's

Several processes write events (the worker, the healer). Each line is one ``write`` to a file opened for
appending, under a lock, so lines never mix; ``seq`` counts per source; ``t_s`` orders all of them, for
CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from monkeyproof.clock import Anchor, Clock, SystemClock
from monkeyproof.config.redaction import redact
from monkeyproof.errors import UsageError
from monkeyproof.types import Json

VERSION = 1
TRIAL_FILE = "trial.json"
EVENTS_FILE = "events.jsonl"
READINGS_FILE = "readings.arrows"
LOAD_FILE = "load.json"
UNDO_FILE = "undo.jsonl"
JOURNAL_FILE = "journal.json"
EXPERIMENT_FILE = "experiment.json"
DISCARDED_DIR = "discarded"
"""Folder of a campaign for trials that ``--resume`` moved aside."""
INCIDENTS_DIR = "incidents"


class Kind(StrEnum):
    """Every kind of event there is. ``data`` keys are listed for each."""

    TRIAL_STARTED = "trial.started"  # title
    TRIAL_ABORTED = "trial.aborted"  # why
    TRIAL_ENDING = "trial.ending"  # from here on the trial only reverts what is open
    TRIAL_ENDED = "trial.ended"  # status
    PHASE_STARTED = (
        "phase.started"  # subject: prepare, baseline, await, hold, revert, after_revert, cool_down, put_back
    )
    PHASE_ENDED = "phase.ended"  # subject: the phase; why
    BASELINE_MET = "baseline.met"  # good_share, window_s (as used), readings (how many that were)
    BASELINE_MISSED = "baseline.missed"  # good_share, window_s, readings, why
    FAULT_INTENDED = "fault.intended"  # id, fault, parameters, held, ends_by_itself_s, pauses_s (if so); t_s is t0
    FAULT_INJECTED = "fault.injected"  # id, fault: an external fault, done, for which no evidence is named
    FAULT_EFFECTIVE = "fault.effective"  # id, fault, summary, evidence
    FAULT_UNPROVEN = "fault.unproven"  # id ("" if it was not even intended), fault, why
    FAULT_REFUSED = "fault.refused"  # id (""), fault, parameters, why: in the phase "storm", which goes on
    FAULT_REVERTED = "fault.reverted"  # id, fault, summary
    FAULT_NOT_REVERTED = "fault.not_reverted"  # id, fault, why
    LEASE_RAN_OUT = (
        "lease.ran_out"  # why: a fault ended by itself, because its lease was not renewed; subject: its id
    )
    FAULT_ENDED_EARLY = "fault.taken_away"  # id, fault, why: ended before the revert, by no healer
    RESIDUE_FOUND = "residue.found"  # what, mend: left behind although everything is reverted
    RECOVERY_SEEN = "recovery.seen"  # good_share: during the hold, readings met the objective again
    SERVICE_GONE = "service.gone"  # how, proven_after_ms: see probes.prober.connection_monitor
    SERVICE_REACHABLE = "service.reachable"  # a connection held again; it may not answer yet
    OBSERVER_DIED = "observer.died"  # subject: prober, load or healer; why
    BOUNDS_WATCHED = "bounds.watched"  # conditions: how many; from here on each of them may end the trial
    HEALER_READY = "healer.ready"
    HEALER_DETECTED = "healer.detected"  # signal, value, threshold, summary
    HEALER_DIAGNOSED = "healer.diagnosed"  # cause, summary
    HEALER_ACTING = "healer.acting"  # remedy, summary
    HEALER_ACTED = "healer.acted"  # remedy, ok, summary
    HEALER_RESOLVED = "healer.resolved"  # summary
    HEALER_ESCALATED = "healer.escalated"  # summary, incident


@dataclass(frozen=True, slots=True)
class Event:
    """One line of ``events.jsonl``."""

    seq: int
    t_s: float
    kind: Kind
    source: str
    subject: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)


NOT_FREE_TEXT = ("id", "status")
"""Data keys whose values are never redacted: a reader compares them, and no user or service writes them."""


class HistoryWriter:
    """Appends events of one source to a trial's folder. Safe across threads and processes."""

    def __init__(
        self,
        folder: Path,
        anchor: Anchor,
        source: str,
        clock: Clock | None = None,
        *,
        keeps_going: bool = False,
    ) -> None:
        """
        Args:
            keeps_going: an event that cannot be written sets ``lost`` and raises nothing, for a caller that has
                to revert faults first.
        """
        self.folder = folder
        self.anchor = anchor
        self.lost = ""
        """Why an event could not be written, if one could not."""
        self._keeps_going = keeps_going
        self._source = source
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seq = 0
        self._file = os.open(folder / EVENTS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def now_s(self) -> float:
        """Seconds since the trial began."""
        return self._clock.monotonic_s() - self.anchor.monotonic_s

    def event(self, kind: Kind, subject: str = "", *, t_s: float | None = None, **data: Json) -> Event:
        """Append one event; the kernel has it when this returns. Secrets are left out.

        Raises:
            OSError: it cannot be written, and this writer does not keep going.
        """
        data = {key: value if key in NOT_FREE_TEXT else redact(value) for key, value in data.items()}
        with self._lock:
            self._seq += 1
            event = Event(
                self._seq, round(self.now_s() if t_s is None else t_s, 6), kind, self._source, subject, data
            )
            line = json.dumps(asdict(event), separators=(",", ":"), default=str).encode() + b"\n"
            try:
                self._append(line)
            except OSError as error:
                self.lost = f"{self.folder / EVENTS_FILE} cannot be written ({error.strerror or error})"
                if not self._keeps_going:
                    raise
        return event

    def why_unrecorded(self) -> str:
        """Why events cannot be recorded any more, as far as that can be found out; "" if they can."""
        if self.lost:
            return self.lost
        try:
            disk = os.statvfs(self.folder)
        except OSError as error:
            return f"{self.folder} cannot be read ({error.strerror or error})"
        free = disk.f_bavail if os.geteuid() else disk.f_bfree
        full = disk.f_blocks and not free
        return f"{self.folder} cannot be written ({os.strerror(errno.ENOSPC)})" if full else ""

    def _append(self, line: bytes) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, line) != len(line):
                # Half a line would merge with the next one, and neither could be read.
                os.ftruncate(self._file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)


def parse_events(text: bytes) -> Iterator[Event]:
    """Parse events of whole lines; a torn last line (its writer was killed) is left out.

    Raises:
        UsageError: a whole line is not an event of a known kind.
    """
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            raw = json.loads(line)
            yield Event(raw["seq"], raw["t_s"], Kind(raw["kind"]), raw["source"], raw["subject"], raw["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{EVENTS_FILE}:{number}: not an event: {error}") from None


def events_in(folder: Path) -> list[Event]:
    """A trial's events so far, in the order of writing; none if it has no history yet, or its folder was deleted.

    Raises:
        UsageError: as ``parse_events``.
    """
    try:
        return list(parse_events((folder / EVENTS_FILE).read_bytes()))
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class History:
    """A trial's folder in memory. ``events`` are in order of time."""

    folder: Path
    trial: Mapping[str, Json]
    events: tuple[Event, ...]

    @classmethod
    def read(cls, folder: Path) -> History:
        """Read a trial's folder.

        Raises:
            UsageError: there is no trial in it, or it was written by a newer version.
        """
        try:
            trial = json.loads((folder / TRIAL_FILE).read_bytes())
        except FileNotFoundError:
            raise UsageError(f"{folder}: no {TRIAL_FILE} in it, so this is not a trial's history") from None
        except ValueError as error:
            raise UsageError(f"{folder / TRIAL_FILE}: damaged: {error}") from None
        if trial.get("version", 0) > VERSION:
            raise UsageError(
                f"{folder / TRIAL_FILE}: written by a newer monkeyproof (history version "
                f"{trial['version']}, this one reads up to {VERSION}); upgrade to read it"
            )
        events_path = folder / EVENTS_FILE
        events = parse_events(events_path.read_bytes()) if events_path.exists() else iter(())
        return cls(folder, trial, tuple(sorted(events, key=lambda event: event.t_s)))

    def of_kind(self, *kinds: Kind) -> tuple[Event, ...]:
        return tuple(event for event in self.events if event.kind in kinds)

    def first(self, *kinds: Kind) -> Event | None:
        return next((event for event in self.events if event.kind in kinds), None)


def write_json(path: Path, value: Json) -> None:
    """Replace a file atomically; only the user can read it."""
    # A name of its own: two processes (a healer and the harness) may write the same file at the same moment.
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file, indent=2, default=str)
            file.write("\n")
        Path(draft).rename(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise

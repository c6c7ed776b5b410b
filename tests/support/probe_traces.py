"""Synthetic readings and events for the tests of the probes' room."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config.target_file import Predict, ProberSettings, Slo, TargetFile, Windows
from monkeyproof.injection.inject import Context, set_current
from monkeyproof.record.history import READINGS_FILE, Event, HistoryWriter, Kind
from monkeyproof.record.readings import Reading, Readings, ReadingsWriter, SignalState
from monkeyproof.undo.log import UndoLog

PERIOD_S = 0.05
SLO = Slo(latency_ms=250.0, objective=0.99, stable_for_s=1.0)

GOOD, BAD, UNKNOWN = SignalState.GOOD, SignalState.BAD, SignalState.UNKNOWN


def reading(
    slot: int, letter: str, *, period_s: float = PERIOD_S, took_s: float = 0.01, at_s: float = 0.0
) -> Reading:
    """One reading: G good, W wrong, D degraded but right, S slow, R refused, T timed out, U never sent."""
    due_s = at_s + slot * period_s
    sent_s = due_s + 0.0001
    if letter == "U":
        nan = float("nan")
        return Reading(slot, due_s, nan, nan, UNKNOWN, UNKNOWN, UNKNOWN, problem="missed")
    if letter == "R":
        return Reading(slot, due_s, sent_s, sent_s + 0.001, BAD, GOOD, UNKNOWN, problem="refused")
    if letter == "T":
        return Reading(slot, due_s, sent_s, due_s + 1.0, BAD, BAD, UNKNOWN, problem="timeout")
    took_s = 0.5 if letter == "S" else took_s
    return Reading(
        slot,
        due_s,
        sent_s,
        sent_s + took_s,
        GOOD,
        BAD if letter == "S" else GOOD,
        BAD if letter == "W" else GOOD,
        degraded=letter == "D",
        status=200,
    )


def letters(*parts: tuple[float, str], period_s: float = PERIOD_S) -> str:
    """``letters((2, "G"), (1, "R"))``: two seconds of good readings, then one of refused ones."""
    return "".join(letter * round(duration_s / period_s) for duration_s, letter in parts)


def trace(text: Iterable[str], *, at_s: float = 0.0, period_s: float = PERIOD_S) -> Readings:
    """Readings by letter; a space is a slot without a row."""
    return Readings.of(
        reading(slot, letter, at_s=at_s, period_s=period_s) for slot, letter in enumerate(text) if letter != " "
    )


def rows_of(readings: Readings) -> list[Reading]:
    return [
        Reading(
            int(readings.slot[i]),
            float(readings.scheduled_s[i]),
            float(readings.sent_s[i]),
            float(readings.finished_s[i]),
            SignalState(readings.available[i]),
            SignalState(readings.fast[i]),
            SignalState(readings.correct[i]),
        )
        for i in range(len(readings))
    ]


def event(t_s: float, kind: Kind, subject: str = "", source: str = "trial", **data: Any) -> Event:
    return Event(1, t_s, kind, source, subject, data)


def fault(
    t0_s: float = 2.0,
    *,
    held: bool = True,
    reverted_s: float | None = None,
    effective: bool = True,
    name: str = "f",
    baseline: bool = True,
) -> list[Event]:
    """The events of a baseline and one fault."""
    events = [event(t0_s - 0.1, Kind.BASELINE_MET, good_share=1.0, window_s=1.0)] if baseline else []
    events.append(event(t0_s, Kind.FAULT_INTENDED, "part", id=name, fault="noop.nothing", held=held))
    if effective:
        events.append(event(t0_s + 0.05, Kind.FAULT_EFFECTIVE, "part", id=name, summary="seen"))
    if reverted_s is not None:
        events.append(event(reverted_s, Kind.FAULT_REVERTED, "part", id=name, summary="reverted"))
    return events


def remedy(acting_s: float, acted_s: float, *, ok: bool = True, name: str = "restart") -> list[Event]:
    return [
        event(acting_s, Kind.HEALER_ACTING, "part", "elephant", remedy=name, summary=name),
        event(acted_s, Kind.HEALER_ACTED, "part", "elephant", remedy=name, ok=ok, summary=name),
    ]


def detected(at_s: float) -> Sequence[Event]:
    return [
        event(at_s, Kind.HEALER_DETECTED, "part", "elephant", signal="x", value=1, threshold=0, summary="seen")
    ]


HEALER = [*detected(2.6), *remedy(2.7, 3.5)]


class FeedingClock(ManualClock):
    """A clock by which readings appear in a folder: each is written a moment after its end, as by the prober."""

    def __init__(self, folder: Path, text: str, *, written_after_s: float = 0.2) -> None:
        super().__init__()
        self._file = ReadingsWriter(folder / READINGS_FILE)
        self._after_s = written_after_s
        self._rows = [reading(slot, letter) for slot, letter in enumerate(text) if letter != " "]

    def sleep_s(self, duration_s: float) -> None:
        assert duration_s > 0, "a wait that does not wait"
        super().sleep_s(duration_s)
        self.feed()

    def feed(self) -> None:
        def ended_s(row: Reading) -> float:
            return row.scheduled_s if math.isnan(row.finished_s) else row.finished_s

        due = [row for row in self._rows if ended_s(row) + self._after_s <= self.now_s]
        self._rows = [row for row in self._rows if ended_s(row) + self._after_s > self.now_s]
        if due:
            self._file.write(due)

    def go_to(self, now_s: float) -> None:
        self.now_s = now_s
        self.feed()


class FileTarget:
    """A target that has nothing but its file."""

    def __init__(self, file: TargetFile) -> None:
        self.file = file

    def find(self, capability: type[Any]) -> None:  # noqa: ARG002
        return None

    def close(self) -> None: ...


@contextlib.contextmanager
def open_trial(folder: Path, text: str, **settings: Any) -> Iterator[Context]:
    """The open trial of this process, its readings made of letters, its clock moved by waiting only."""
    clock = FeedingClock(folder, text)
    file = TargetFile(
        "t",
        Predict(url="http://127.0.0.1:1/", golden=Path("none")),
        slo=SLO,
        windows=Windows(baseline_s=1.0, horizon_s=6.0, after_revert_s=3.0),
        prober=ProberSettings(rate_per_s=20, timeout_ms=1000),
        **settings,
    )
    writer = HistoryWriter(folder, Anchor(0.0, ""), "trial", clock)
    log = UndoLog(folder / "log.jsonl")
    context = Context(folder, FileTarget(file), writer, log, 1, "none", clock)
    set_current(context)
    try:
        yield context
    finally:
        set_current(None)
        writer.close()
        log.close(folder / "undo.jsonl")

"""Incidents: one JSON file for a person each time the Elephant cannot help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import count

from monkeyproof.healing.diagnose import Diagnosis
from monkeyproof.healing.policy import Attempt
from monkeyproof.record.history import INCIDENTS_DIR, HistoryWriter, Kind, write_json

VERSION = 1


class Incidents:
    """Writes ``incidents/<n>.json`` into the trial's folder, and the event that points to it."""

    def __init__(self, history: HistoryWriter) -> None:
        self._history = history
        self.count = 0

    def write(
        self, subject: str, why: str, diagnosis: Diagnosis | None, tried: Sequence[Attempt], advice: str
    ) -> None:
        """Record what was detected, what was tried, and what a person should do."""
        folder = self._history.folder / INCIDENTS_DIR
        folder.mkdir(exist_ok=True, mode=0o700)
        # Another healer, or an earlier run of this one, may have written into the same trial.
        path = next(path for n in count(self.count + 1) if not (path := folder / f"{n}.json").exists())
        self.count = int(path.stem)
        anchor_s = self._history.anchor.monotonic_s
        write_json(
            path,
            {
                "version": VERSION,
                "t_s": round(self._history.now_s(), 3),
                "subject": subject,
                "cause": diagnosis.cause if diagnosis else "unknown",
                "why": why,
                "seen": [asdict(detection) for detection in (diagnosis.because if diagnosis else ())],
                "tried": [
                    asdict(attempt)
                    | {
                        "began_s": round(attempt.began_s - anchor_s, 3),
                        "ended_s": round(attempt.ended_s - anchor_s, 3),
                    }
                    for attempt in tried
                ],
                "recommendation": advice,
            },
        )
        self._history.event(
            Kind.HEALER_ESCALATED,
            subject,
            summary=f"{diagnosis.cause if diagnosis else 'unknown'}: {why}. {advice}",
            incident=str(path.relative_to(self._history.folder)),
        )

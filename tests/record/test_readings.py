"""Readings: what is written is read back, in the order of the slots, without needless libraries."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np

from monkeyproof.record.readings import Reading, Readings, ReadingsWriter, SignalState

ROWS = [
    Reading(2, 0.04, 0.041, 0.05, SignalState.GOOD, SignalState.BAD, SignalState.GOOD, True, 200, "v•2", "slow"),
    Reading(
        0, 0.0, math.nan, math.nan, SignalState.UNKNOWN, SignalState.UNKNOWN, SignalState.UNKNOWN, problem="missed"
    ),
    Reading(
        1, 0.02, 0.02, 0.03, SignalState.BAD, SignalState.GOOD, SignalState.UNKNOWN, False, 503, "", "HTTP 503"
    ),
]


def test_written_readings_are_read_in_order(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r")
    writer.write(ROWS[:2])
    writer.write([])
    writer.write(ROWS[2:])
    writer.close()
    found = Readings.read(tmp_path / "r")
    for column in fields(Readings):
        wanted = [getattr(row, column.name) for row in sorted(ROWS, key=lambda row: row.slot)]
        np.testing.assert_array_equal(getattr(found, column.name), wanted, strict=False)
    assert (found.slot.dtype, found.status.dtype, found.fast.dtype) == (np.int64, np.int16, np.int8)


def test_no_readings() -> None:
    found = Readings.of([])
    assert len(found) == 0
    assert len(found.good) == 0


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    """It would be in each process of each trial, and takes a quarter of a second there."""
    code = (
        "import sys; from pathlib import Path; from monkeyproof.record.readings import *\n"
        "good = [SignalState.GOOD] * 3\n"
        "w = ReadingsWriter(Path(sys.argv[1])); w.write([Reading(0, 0.0, 0.0, 0.0, *good)]); w.close()\n"
        "assert Readings.read(Path(sys.argv[1])).good.all(); sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], check=True, timeout=60)

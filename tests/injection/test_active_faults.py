"""How long this harness's own faults may be in force, whatever an experiment's method does meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from monkeyproof.config.target_file import Windows
from monkeyproof.injection.active import MARGIN_S, ActiveFaults, bound_s
from monkeyproof.probes.watch import longest_hold_s, promised_hold
from monkeyproof.types import Json

WINDOWS = Windows(horizon_s=6.0, after_revert_s=3.0)
BUSY = """
import sys, time
from pathlib import Path
from monkeyproof.injection import active
from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.target_file import Predict, TargetFile, Windows
from monkeyproof.faults import noop
from monkeyproof.record.history import HistoryWriter
from monkeyproof.injection.inject import Context, revert, set_current
from monkeyproof.trial.trial_monitor import TrialMonitor
from monkeyproof.trial.run import _end_on_signals
from monkeyproof.undo.log import UndoLog

class Target:
    file = TargetFile("t", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=("noop",),
                      windows=Windows(horizon_s=0.1, after_revert_s=0.1))

folder, clock = Path(sys.argv[1]), SystemClock()
active.MARGIN_S = 0.1
history = HistoryWriter(folder, Anchor.now(clock), "trial")
context = Context(folder, Target(), history, UndoLog(folder / "u"), 1, "none")
set_current(context)
_end_on_signals()
TrialMonitor(print, lambda: context.active_faults.why_too_long(Target.file.windows, clock.monotonic_s()))
noop.nothing()
revert()
time.sleep(0.5)
noop.nothing()
print("busy", flush=True)
time.sleep(30)
"""


def hold(**arguments: Json) -> dict[str, Json]:
    provider = {"type": "python", "module": "monkeyproof.probes.watch", "func": "hold_until_recovered"}
    return {"method": [{"type": "probe", "name": "hold", "provider": {**provider, "arguments": arguments}}]}


def test_the_trial_monitor_ends_a_method_that_takes_too_long(tmp_path: Path) -> None:
    """Not while nothing is in force, however long that takes."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY, str(tmp_path)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.splitlines() == [
        "busy",
        "a fault was active for more than 0.3 s, the most that the target's windows allow",
    ]
    assert done.returncode == 4, done.stderr


def test_the_time_counts_from_the_first_fault_to_the_revert() -> None:
    faults = ActiveFaults()
    limit_s = bound_s(WINDOWS)
    assert limit_s == 9.0 + MARGIN_S
    faults.begins("1", 100.0, held=True)
    faults.begins("2", 105.0, held=True)
    faults.begins("killed", 1.0, held=False)
    assert faults.why_too_long(WINDOWS, 100.0 + limit_s) == ""
    assert "more than 14 s" in faults.why_too_long(WINDOWS, 100.1 + limit_s)
    faults.hold_at_most_s = 20.0
    assert faults.why_too_long(WINDOWS, 100.1 + limit_s) == ""
    faults.hold_at_most_s = 0.0
    faults.ending()
    assert faults.why_too_long(WINDOWS, 500.0) == ""
    faults.ended("1")
    faults.ended("2")
    faults.begins("3", 500.0, held=True)
    assert faults.why_too_long(WINDOWS, 501.0) == ""


def test_a_plan_promises_what_the_trial_monitor_enforces() -> None:
    ended = "after 14 s the trial is ended, whatever its method does"
    assert promised_hold({"method": []}, WINDOWS, ends_trial=True) == f"as long as the method takes; {ended}"
    words = "until a recovery is seen, for at most 6 s"
    assert promised_hold(hold(), WINDOWS, ends_trial=True) == f"{words}; {ended}"
    assert promised_hold({"method": []}, WINDOWS, ends_trial=False) == words
    assert "after 68 s the trial is ended" in promised_hold(hold(at_most_s=60), WINDOWS, ends_trial=True)
    assert longest_hold_s(hold(at_most_s="${seconds}", at_least_s=4)) == 4.0

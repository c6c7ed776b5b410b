"""Plain ``chaos run``: the signals that end it, and the folders that it creates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaoslib.exceptions import InterruptExecution

from monkeyproof.experiment.activity_roles import ActivityRoles
from monkeyproof.paths import make_private
from monkeyproof.trial.external import ExternalFault

ENDED = """
import os, signal, sys, time
from chaoslib.exceptions import InterruptExecution
from chaoslib.exit import exit_signals
from monkeyproof import control

with exit_signals(), control._end_on_signals():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(10)
    except (InterruptExecution, KeyboardInterrupt) as error:
        print(type(error).__name__, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    time.sleep(0.1)
    print(control._signals, flush=True)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
SIGNALS = "from monkeyproof.runtime.stop_file import SIGNALS; print([one.name for one in SIGNALS])"
NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""


@pytest.mark.parametrize(("number", "how"), [(1, "InterruptExecution"), (2, "KeyboardInterrupt")])
def test_the_first_signal_ends_a_run_and_later_ones_are_ignored(number: int, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED, str(number)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.splitlines() == [how, f"[{number}]", "True"], done.stderr


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", NOHUP, how, SIGNALS],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
        for how in ("SIG_DFL", "SIG_IGN")
    ]
    assert found == ["['SIGINT', 'SIGTERM', 'SIGHUP']\n", "['SIGINT', 'SIGTERM']\n"]


def test_an_interruption_ends_an_external_experiment() -> None:
    external = ExternalFault({}, ActivityRoles("break", "", ("mend",)))
    external.start_method({})
    with pytest.raises(SystemExit), external._recording_failures():
        raise InterruptExecution("SIGTERM signal received")
    external._section = "rollbacks"  # An interruption does not skip rollbacks.
    with external._recording_failures():
        raise InterruptExecution("SIGTERM signal received")
    journal = {"status": "running"}
    external.rollbacks_completed({}, journal)
    assert journal == {"status": "interrupted"}


def test_new_folders_are_private_and_existing_ones_keep_their_mode(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o755)
    before = os.umask(0)
    try:
        make_private(tmp_path / "there" / "runs" / "one")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "there", *(tmp_path / "there").rglob("*"))]
    assert modes == [0o755, 0o700, 0o700]

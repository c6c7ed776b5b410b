"""The command line as a user calls it: a process of its own, in a folder of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import EXIT_REFUSED

ENDS_WITHIN_S = 100.0


def monkeyproof(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``monkeyproof`` to its end, whatever its exit code; ``environment`` is added to that of the test."""
    return subprocess.run(
        [sys.executable, "-m", "monkeyproof.cli", *(str(argument) for argument in arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )


def ended_everything_here(stop: subprocess.CompletedProcess[str]) -> bool:
    """Whether ``monkeyproof stop`` ended everything in this test's home.

    Its exit code also tells of the same user's campaigns in other homes. A test has no say over those: it only
    demands that its own home is not among them.
    """
    if stop.returncode == EXIT_REFUSED:
        return "still running: " in stop.stderr and f"MONKEYPROOF_HOME={paths.home()}" not in stop.stderr
    return stop.returncode == 0

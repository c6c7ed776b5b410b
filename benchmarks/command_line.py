"""How soon the command line answers: ``python benchmarks/command_line.py``.

Whole processes, run in turn with ``python -c pass`` so that a busy machine slows both; prints medians and their
ratio.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS_COUNT = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "monkeyproof --help": [sys.executable, "-m", "monkeyproof.cli", "--help"],
    "monkeyproof run --help": [sys.executable, "-m", "monkeyproof.cli", "run", "--help"],
}


def main() -> None:
    times_ms: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS_COUNT):
        for name, command in COMMANDS.items():
            begun_s = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times_ms[name].append((time.perf_counter() - begun_s) * 1000)
    base_ms = statistics.median(times_ms["python -c pass"])
    for name, values in times_ms.items():
        median_ms = statistics.median(values)
        print(f"{name:24} median {median_ms:6.0f} ms  {median_ms / base_ms:4.1f} x the bare interpreter")


if __name__ == "__main__":
    main()

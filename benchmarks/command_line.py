"""How soon the command line answers, and what an import costs: ``python benchmarks/command_line.py``.

Whole processes, run in turn with a process that does less so that a busy machine slows both. Printed are medians,
and for imports the CPU time (user and system) beyond that process. Exits with 1 if an import costs too much.
"""

from __future__ import annotations

import os
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
DATA_ENGINE_MAX_S = 0.15
"""CPU seconds of the data engine's import, beyond numpy's."""


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
        print(f"{name:34} median {median_ms:6.0f} ms  {median_ms / base_ms:4.1f} x the bare interpreter")
    numpy_s, engine_s = [], []
    for _ in range(RUNS_COUNT):
        numpy_s.append(cpu_s("import numpy"))
        engine_s.append(cpu_s("import monkeyproof.faults.data"))
    beyond_s = statistics.median(engine_s) - statistics.median(numpy_s)
    print(f"{'import monkeyproof.faults.data':34} median {beyond_s:6.3f} s of CPU beyond numpy")
    if beyond_s > DATA_ENGINE_MAX_S:
        sys.exit(f"the import is to cost at most {DATA_ENGINE_MAX_S} s of CPU beyond numpy")


def cpu_s(code: str) -> float:
    """CPU time, user and system, of a fresh interpreter that runs some code."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


if __name__ == "__main__":
    main()

"""How late the prober sends, and what a probe costs, against a service on the loopback.

    python benchmarks/prober.py [--seconds 10]

Prints one line a rate. The cost of starting is taken off by the difference of two runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from monkeyproof.history import READINGS_FILE
from monkeyproof.readings import Readings, Sight

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "probes"))
import probe_service

SHORT_S = 2.0


def probe(service: probe_service.Handle, rate_per_s: float, for_s: float) -> tuple[Readings, float]:
    """Readings of ``for_s`` seconds, and the CPU seconds that the prober's process used, start and all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = probe_service.write_target(folder, service.port, rate_per_s=rate_per_s)
        arguments = ["--target", str(target), "--out", name, "--anchor", repr(time.monotonic()), "--seed", "1"]
        process = subprocess.Popen([sys.executable, "-m", "monkeyproof.probes.prober", *arguments])
        try:
            while not (folder / READINGS_FILE).exists():
                time.sleep(0.05)
            time.sleep(for_s)
        finally:
            process.terminate()
            _, _, usage = os.wait4(process.pid, 0)
        return Readings.read(folder / READINGS_FILE), usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the prober.")
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    print("rate/s  sent  unknown  bad  late p50/p99/max ms      latency p50/p99 ms  CPU us/probe")
    with probe_service.running() as service:
        for rate_per_s in (50.0, 500.0):
            few, short_s = probe(service, rate_per_s, SHORT_S)
            readings, long_s = probe(service, rate_per_s, SHORT_S + seconds)
            late_ms = np.percentile(readings.lateness_ms[~np.isnan(readings.sent_s)], [50, 99, 100])
            took_ms = np.percentile(readings.latency_ms[~np.isnan(readings.finished_s)], [50, 99])
            print(
                f"{rate_per_s:6.0f} {len(readings):5d} {(readings.good == Sight.UNKNOWN).sum():8d}"
                f" {(readings.good == Sight.BAD).sum():4d}"
                f"  {late_ms[0]:6.3f} {late_ms[1]:6.3f} {late_ms[2]:6.3f}   {took_ms[0]:8.3f} {took_ms[1]:8.3f}"
                f"  {(long_s - short_s) / (len(readings) - len(few)) * 1e6:12.0f}"
            )


if __name__ == "__main__":
    main()

"""How late the prober sends, what a probe costs, and how well outages and deaths are seen, on the loopback.

    python benchmarks/prober.py [--seconds 10] [--outages 240] [--deaths 40]

Takes about two minutes. The cost of starting is taken off by the difference of two runs; httpx is
measured in the same run, asked for the same. Each line ends with its target where it has one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from monkeyproof.probes.recovery.intervals import impact_index, impact_interval
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import EVENTS_FILE, READINGS_FILE, Kind, parse_events
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.runtime.process_group import ProcessGroup

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import probe_service

SHORT_S = 2.0
OUTAGE_S = 0.05
LANES = 3
HTTPX_RATE_PER_S = 500.0


def probe(service: probe_service.Handle, rate_per_s: float, for_s: float) -> tuple[Readings, float]:
    """Readings of ``for_s`` seconds, and the CPU seconds that the prober's process used, start and all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = probe_service.write_target(folder, service.port, rate_per_s=rate_per_s)
        arguments = ["--target", str(target), "--out", name, "--anchor", repr(time.monotonic()), "--seed", "1"]
        process = subprocess.Popen([sys.executable, "-m", "monkeyproof.probes.prober.prober", *arguments])
        try:
            while not (folder / READINGS_FILE).exists():
                time.sleep(0.05)
            time.sleep(for_s)
        finally:
            process.terminate()
            _, _, usage = os.wait4(process.pid, 0)
        return Readings.read(folder / READINGS_FILE), usage.ru_utime + usage.ru_stime


async def ask_with_httpx(port: int, for_s: float) -> float:
    """CPU microseconds a probe of an open loop with httpx, at the prober's highest rate, without its start."""
    import httpx

    async def ask(client: httpx.AsyncClient, x: int) -> None:
        answer = await client.post(f"http://127.0.0.1:{port}/invocations", json={"x": x})
        assert answer.json()["predictions"] == [x]

    async with httpx.AsyncClient() as client:
        await ask(client, 0)
        count = round(for_s * HTTPX_RATE_PER_S)
        used_s, began_s = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for slot in range(count):
                await asyncio.sleep(began_s + slot / HTTPX_RATE_PER_S - time.monotonic())
                group.create_task(ask(client, slot % 100))
        return (time.process_time() - used_s) / count * 1e6


def rates(seconds: float) -> None:
    print("rate/s  sent  unknown  bad  late p50/p99/max ms      latency p50/p99 ms  CPU us/probe")
    late_p99_ms = cost_us = 0.0
    with probe_service.running() as service:
        for rate_per_s in (50.0, 500.0):
            few, short_s = probe(service, rate_per_s, SHORT_S)
            readings, long_s = probe(service, rate_per_s, SHORT_S + seconds)
            late_ms = np.percentile(readings.lateness_ms[~np.isnan(readings.sent_s)], [50, 99, 100])
            took_ms = np.percentile(readings.latency_ms[~np.isnan(readings.finished_s)], [50, 99])
            late_p99_ms, cost_us = late_ms[1], (long_s - short_s) / (len(readings) - len(few)) * 1e6
            print(
                f"{rate_per_s:6.0f} {len(readings):5d} {(readings.good == SignalState.UNKNOWN).sum():8d}"
                f" {(readings.good == SignalState.BAD).sum():4d}"
                f"  {late_ms[0]:6.3f} {late_ms[1]:6.3f} {late_ms[2]:6.3f}   {took_ms[0]:8.3f} {took_ms[1]:8.3f}"
                f"  {cost_us:12.0f}"
            )
        httpx_us = asyncio.run(ask_with_httpx(service.port, seconds))
    print(f"p99 of the send error at 500/s: {late_p99_ms:.3f} ms (target: at most 0.5)")
    print(
        f"CPU a probe: {cost_us:.0f} us, with httpx {httpx_us:.0f} us: {httpx_us / cost_us:.1f} times less"
        " (target: at least 8)"
    )


def short_outages(count: int, rate_per_s: float = 100.0) -> None:
    """Outages of 50 ms, dark and wrong by turns: whether they are seen, and how well their edges are known."""
    rng = np.random.default_rng(1)
    seen, edges, asked = 0, [], 0
    with tempfile.TemporaryDirectory() as name, ProcessGroup() as group:
        lanes = []
        for number in range(LANES):
            folder = Path(name) / str(number)
            folder.mkdir()
            script: list[tuple[str, float]] = [("good", 1.0)]
            for outage in range(-(-count // LANES)):
                script += [(("dark", "wrong")[outage % 2], OUTAGE_S), ("good", float(rng.uniform(0.25, 0.35)))]
            (folder / "script.json").write_text(json.dumps(script))
            log = folder / "service.jsonl"
            arguments = ["--script", str(folder / "script.json"), "--log", str(log), "--seed", "1"]
            arguments += ["--parent", str(os.getpid())]
            module = "monkeyproof.probes.calibration.service"
            group.start([sys.executable, "-m", module, *arguments], log=folder / "service.log")
            lanes.append((folder, log))
        probers = []
        for folder, log in lanes:
            while not (log.exists() and log.read_text().endswith("\n")):
                time.sleep(0.05)
            port = json.loads(log.read_text().split("\n")[0])["port"]
            target = probe_service.write_target(folder, port, rate_per_s=rate_per_s)
            arguments = ["--target", str(target), "--out", str(folder), "--anchor", "0.0", "--seed", "1"]
            module = "monkeyproof.probes.prober.prober"
            probers.append(group.start([sys.executable, "-m", module, *arguments], log=folder / "prober.log"))
        while not all('"ended"' in log.read_text() for _, log in lanes):
            assert all(prober.poll() is None for prober in probers), "a prober ended"
            time.sleep(0.2)
        for prober in probers:
            group.end(prober)
        for folder, log in lanes:
            slots = ProbeSchedule.of(Readings.read(folder / READINGS_FILE))
            assert slots is not None
            steps = [json.loads(line) for line in log.read_text().splitlines() if '"step"' in line]
            for went, came in zip(steps[1::2], steps[2::2], strict=True):
                asked += 1
                from_s, to_s = went["before_s"], came["after_s"]
                impact = impact_index(slots, from_s - 0.02)
                if impact is None or slots.sent_s[impact] > to_s:
                    continue
                seen += 1
                onset = impact_interval(slots, impact, from_s - 0.1)
                edges.append(abs((onset.low_s + onset.high_s) / 2 - from_s) * rate_per_s)
                bad = np.flatnonzero(slots.is_bad & (slots.sent_s >= from_s - 0.02) & (slots.sent_s <= to_s))
                good = np.flatnonzero(slots.is_good & (np.arange(len(slots)) > bad[-1]))
                if len(good):
                    middle_s = (slots.sent_s[bad[-1]] + slots.finished_s[good[0]]) / 2
                    edges.append(abs(middle_s - came["before_s"]) * rate_per_s)
    print(
        f"outages of {OUTAGE_S * 1000:.0f} ms at {rate_per_s:.0f}/s: {seen} of {asked} seen, {seen / asked:.1%}"
        " (target: at least 99 %)"
    )
    print(
        f"their edges: p95 of the error {np.percentile(edges, 95):.2f} of the probe period (target: at most 0.6)"
    )


def deaths(count: int, rate_per_s: float = 100.0) -> None:
    """How soon a death is seen: of the service's sockets (it closes them on request), and of its process (SIGKILL,
    after which the kernel frees its memory before it closes them).
    """
    closed_ms: list[float] = []
    killed_ms: list[float] = []
    proven_ms, died = [], 0
    with tempfile.TemporaryDirectory() as name, ProcessGroup() as group, contextlib.ExitStack() as services:
        folder = Path(name)
        service = services.enter_context(probe_service.running())
        target = probe_service.write_target(folder, service.port, rate_per_s=rate_per_s)
        anchor_s = time.monotonic()
        arguments = ["--target", str(target), "--out", name, "--anchor", repr(anchor_s), "--seed", "1"]
        prober = group.start(
            [sys.executable, "-m", "monkeyproof.probes.prober.prober", *arguments], log=folder / "prober.log"
        )
        rng = np.random.default_rng(1)
        for number in range(count):
            time.sleep(2.0 * (number == 0) + float(rng.uniform(0.8, 1.0)))
            died_s, seen_ms = time.monotonic(), closed_ms
            if number % 2:
                service.kill()
                service.process.wait()
                seen_ms = killed_ms
            else:
                died_s = service.tell("dark")["done_s"]
            died += 1
            time.sleep(0.5)
            events = parse_events((folder / EVENTS_FILE).read_bytes())
            gone = [event for event in events if event.kind is Kind.SERVICE_GONE]
            if gone and gone[-1].t_s > died_s - anchor_s - 0.1:
                seen_ms.append((gone[-1].t_s + anchor_s - died_s) * 1000.0)
                proven_ms.append(gone[-1].data["proven_after_ms"])
            if number % 2:
                service = services.enter_context(probe_service.running(service.port))
            else:
                service.tell("good")
        group.end(prober)
    for what, seen_ms, goal in (
        ("the end of its sockets", closed_ms, " (target: p50 at most 0.3)"),
        ("a SIGKILL of its process", killed_ms, ""),
    ):
        p50_ms, p99_ms = np.percentile(seen_ms, [50, 99])
        print(f"the service's death is seen {p50_ms:.3f} ms (p50), {p99_ms:.3f} ms (p99) after {what}{goal}")
    print(
        f"seen between two questions at {rate_per_s:.0f}/s: {len(proven_ms)} of {died};"
        f" proven {np.percentile(proven_ms, 50):.3f} ms (p50) after that"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the prober.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--outages", type=int, default=240)
    parser.add_argument("--deaths", type=int, default=40)
    arguments = parser.parse_args()
    rates(arguments.seconds)
    short_outages(arguments.outages)
    deaths(arguments.deaths)


if __name__ == "__main__":
    main()

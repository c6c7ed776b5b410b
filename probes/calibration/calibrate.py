"""Proves the clock on this machine: real outages at known instants, real probers, measured as a trial is.

A few pairs run side by side, each a service that misbehaves by a script and a prober that asks it. Whatever a
machine does to a trial's clock (late wake-ups, a busy neighbour), it does to these.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import numpy as np

from monkeyproof import __version__, paths
from monkeyproof.clock import Clock, wait_for
from monkeyproof.errors import MonkeyproofError
from monkeyproof.probes.calibration.episodes import (
    SLO,
    TIMEOUT_MS,
    Episode,
    Judged,
    figures,
    figures_by_kind,
    judge,
    plan_episodes,
)
from monkeyproof.record.history import READINGS_FILE, write_json
from monkeyproof.record.readings import Readings
from monkeyproof.runtime.process_group import ProcessGroup, last_log_line
from monkeyproof.runtime.process_ref import reference_text
from monkeyproof.types import Interval, Json

if TYPE_CHECKING:
    from rich.table import Table

VERSION = 1
PAIRS = 4
HELD_SHARE_MIN = 0.99
DISTURBED_SHARE_MAX = 0.1
START_WITHIN_S = 20.0
REST_FIRST_S = 0.8
"""Good time before the first episode, in which the prober warms up."""


@dataclass(slots=True)
class _Pair:
    """A service and its prober, in processes of their own, and the script of the one."""

    folder: Path
    episodes: Sequence[Episode]
    service: Popen[bytes] | None = None
    prober: Popen[bytes] | None = None

    @property
    def script(self) -> list[tuple[str, float]]:
        return [("good", REST_FIRST_S), *(step for episode in self.episodes for step in episode.script)]

    def log_lines(self) -> list[dict[str, Json]]:
        """The lines that the service has logged so far."""
        try:
            lines = (self.folder / "service.jsonl").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def check(self) -> None:
        for name, process in (("service", self.service), ("prober", self.prober)):
            if process is not None and process.poll() is not None:
                why = last_log_line(self.folder / f"{name}.log")
                raise MonkeyproofError(f"the calibration's {name} ended too early: {why}")


def calibrate(
    episodes_count: int,
    rate_per_s: float,
    seed: int,
    machine: Mapping[str, Json],
    clock: Clock,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Json]:
    """Run the episodes, and store and return what they tell of the clock; ``progress`` gets how many are over.

    Raises:
        MonkeyproofError: it could not be run to its end; nothing is stored.
    """
    began_s = clock.monotonic_s()
    with tempfile.TemporaryDirectory(prefix="monkeyproof-calibrate-") as name:
        planned = plan_episodes(episodes_count, seed)
        judged, lateness_ms = run_episodes(planned, rate_per_s, seed, Path(name), clock, progress)
    found = figures(judged)
    known = found["episodes_count"] and found["disturbed_count"] <= DISTURBED_SHARE_MAX * len(judged)
    result = {
        "version": VERSION,
        "utc": clock.utc().isoformat(timespec="seconds"),
        "monkeyproof": __version__,
        "machine": dict(machine),
        "rate_per_s": rate_per_s,
        "seed": seed,
        "passed": bool(known and found["held_share"] >= HELD_SHARE_MIN and not misjudged(judged)),
        **found,
        "lateness_p99_ms": float(np.percentile(lateness_ms, 99)),
        "lateness_max_ms": float(lateness_ms.max()),
        "duration_s": clock.monotonic_s() - began_s,
        "by_kind": figures_by_kind(judged),
        "failures": [_words(one) for one in judged if one.disturbed or not one.held],
    }
    write_json(paths.home() / "calibration.json", result)
    return result


def stored() -> dict[str, Json]:
    """What ``calibrate`` last found on this machine; empty if it never ran, or the file is damaged."""
    try:
        found = json.loads((paths.home() / "calibration.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("version") == VERSION else {}


def misjudged(judged: Sequence[Judged]) -> list[Judged]:
    """Flaps and outages without end that were taken for something else: no share of these is small enough."""
    kinds = ("flapping", "never recovers")
    return [one for one in judged if not one.disturbed and not one.end_held and one.episode.kind in kinds]


def _words(one: Judged) -> str:
    if one.disturbed:
        return f"{one.episode.kind}: not counted: {one.disturbed}"
    what = "its end" if not one.end_held else "its onset"
    return f"{one.episode.kind}: {what} is not where it was measured: {one.recovery.reason}"


def run_episodes(
    episodes: Sequence[Episode],
    rate_per_s: float,
    seed: int,
    folder: Path,
    clock: Clock,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Judged], Any]:
    """Run the episodes on a few pairs at once, and judge them. Also how late each question was sent, in ms.

    Raises:
        MonkeyproofError: a service or a prober could not be started, or ended too early.
    """
    count = min(PAIRS, len(episodes))
    pairs = [_Pair(folder / f"pair{number}", episodes[number::count]) for number in range(count)]
    anchor_s = clock.monotonic_s()
    with ProcessGroup() as group:
        for number, pair in enumerate(pairs):
            pair.folder.mkdir()
            _start_service(group, pair, seed + number)
        for number, pair in enumerate(pairs):
            _start_prober(group, pair, rate_per_s, seed + number, anchor_s, clock)
        within_s = START_WITHIN_S + max(sum(duration_s for _, duration_s in pair.script) for pair in pairs)

        def ended() -> bool:
            over = 0
            for pair in pairs:
                pair.check()
                over += _episodes_over(pair)
            progress(over)
            return all(line.get("ended") for pair in pairs for line in pair.log_lines()[-1:])

        if not wait_for(ended, within_s=within_s, every_s=0.2, clock=clock):
            raise MonkeyproofError(f"the calibration did not come to its end within {within_s:.0f} s")
        for pair in pairs:
            if pair.prober is not None:
                group.end(pair.prober)  # It waits for the probes in flight, and writes its last readings.
    judged: list[Judged] = []
    lateness_ms = []
    for pair in pairs:
        readings = Readings.read(pair.folder / READINGS_FILE)
        judged += _judge_pair(pair, readings, anchor_s)
        lateness_ms.append(readings.lateness_ms[~np.isnan(readings.sent_s)])
    return judged, np.concatenate(lateness_ms)


def _episodes_over(pair: _Pair) -> int:
    done = sum("step" in line for line in pair.log_lines()) - 1
    over = 0
    for episode in pair.episodes:
        done -= len(episode.script)
        over += done >= 0
    return over


def _start_service(group: ProcessGroup, pair: _Pair, seed: int) -> None:
    script = pair.folder / "script.json"
    script.write_text(json.dumps(pair.script))
    arguments = ["--script", str(script), "--log", str(pair.folder / "service.jsonl"), "--seed", str(seed)]
    arguments += ["--parent", str(os.getpid())]
    pair.service = _start(group, pair, "service", "monkeyproof.probes.calibration.service", arguments)


def _start_prober(
    group: ProcessGroup, pair: _Pair, rate_per_s: float, seed: int, anchor_s: float, clock: Clock
) -> None:
    def listening() -> bool:
        pair.check()
        return bool(pair.log_lines())

    if not wait_for(listening, within_s=START_WITHIN_S, clock=clock):
        raise MonkeyproofError(
            "the calibration's service did not start: " + last_log_line(pair.folder / "service.log")
        )
    golden = [json.dumps({"body": {"x": x}, "expect": x}) + "\n" for x in range(100)]
    (pair.folder / "golden.jsonl").write_text("".join(golden))
    target = {
        "name": "calibration",
        "predict": {"url": f"http://127.0.0.1:{pair.log_lines()[0]['port']}/", "golden": "golden.jsonl"},
        "slo": {"latency_ms": SLO.latency_ms, "objective": SLO.objective, "stable_for_s": SLO.stable_for_s},
        "prober": {"rate_per_s": rate_per_s, "timeout_ms": TIMEOUT_MS},
    }
    file = pair.folder / "target.yaml"
    file.write_text(json.dumps(target))  # JSON is YAML.
    arguments = ["--target", str(file), "--out", str(pair.folder), "--anchor", repr(anchor_s), "--seed", str(seed)]
    arguments += ["--owner", reference_text(os.getpid())]
    pair.prober = _start(group, pair, "prober", "monkeyproof.probes.prober.prober", arguments)


def _start(group: ProcessGroup, pair: _Pair, name: str, module: str, arguments: Sequence[str]) -> Popen[bytes]:
    try:
        return group.start([sys.executable, "-m", module, *arguments], log=pair.folder / f"{name}.log")
    except OSError as error:
        raise MonkeyproofError(f"the calibration's {name} cannot be started: {error.strerror}") from None


def _judge_pair(pair: _Pair, readings: Readings, anchor_s: float) -> list[Judged]:
    log_lines = pair.log_lines()
    steps = [(line["before_s"] - anchor_s, line["after_s"] - anchor_s) for line in log_lines if "step" in line]
    stalls = [
        Interval(line["stalled"][0] - anchor_s, line["stalled"][1] - anchor_s)
        for line in log_lines
        if "stalled" in line
    ]
    judged, at = [], 1  # The first step is the good time before.
    for episode in pair.episodes:
        count = len(episode.script)
        judged.append(judge(episode, readings, steps[at : at + count], stalls))
        at += count
    return judged


def table(result: Mapping[str, Json]) -> Table:
    """The result as a table for a terminal."""
    from rich.table import Table

    found = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    found.add_column("outage", style="bold", no_wrap=True)
    for title in ("episodes", "held", "onsets held", "bias ms", "p99 error ms", "width ms"):
        found.add_column(title, justify="right")
    for row in [*result["by_kind"], {"kind": "all", **result}]:
        times = (row["bias_ms"], row["error_p99_ms"], row["width_p50_ms"])
        found.add_row(
            row["kind"],
            str(row["episodes_count"]),
            str(row["held_count"]),
            f"{row['onsets_held_count']}/{row['onsets_count']}" if row["onsets_count"] else "",
            *(f"{time:.1f}" if row["width_max_ms"] else "" for time in times),
        )
    return found


def verdict(result: Mapping[str, Json]) -> list[str]:
    """The same in sentences: what was found, and whether the clock can be relied upon here."""
    lines = [
        f"{result['held_count']} of {result['episodes_count']} true outages lie where they were measured"
        f" ({result['held_share']:.1%}; at least {HELD_SHARE_MIN:.0%} have to).",
        f"An outage's end is known to {result['width_p50_ms']:.0f} ms (median; up to"
        f" {result['width_max_ms']:.0f} ms where it was partial), at {result['rate_per_s']:g} questions a second.",
        f"The prober was late by {result['lateness_p99_ms']:.2f} ms (p99),"
        f" {result['lateness_max_ms']:.1f} ms at most.",
        *result["failures"],
    ]
    if result["disturbed_count"]:
        lines.append(f"{result['disturbed_count']} episodes were not counted: the machine was too busy to tell.")
    lines.append(
        "The clock holds on this machine." if result["passed"] else "The clock does NOT hold on this machine."
    )
    return lines

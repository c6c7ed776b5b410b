"""Corrupting a tenth of a million rows of twenty numbers: against a copy, the naive loop, and peers.

    python benchmarks/data.py [--rows 1000000] [--rounds 9]

Everything is timed in turn, round by round, in one process, so that a neighbour's noise meets all alike.
Printed are medians and the best, and how many warm copies the median is: copies of the table into memory that
is there already. Ours go into a ``Workspace``, which is the same; ``fresh`` means memory that has to come first.
What takes seconds (the naive loop, peers) is timed in every fourth round. jenga and tab-err copy all that they
are given, so they are timed in each way that there is to call them: ``usual``, the whole table for each column;
``one call``, which tab-err has for several columns; and ``by column``, a table of one column each time, which
spares them all needless copies. Numba, jenga, tab-err and badgers are timed where they can be imported
(dependency group ``bench``). Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from monkeyproof.errors import UsageError
from monkeyproof.faults.data import Missing, Noise, Scale, Workspace, corrupt
from monkeyproof.faults.support.bitflips import random_bits

SHARE = 0.1
COPIES_MAX = {"missing": 5.0, "scale": 5.0, "arrow nulls": 2.0, "numba missing": 1.3, "numba scale": 1.3}
NAIVE_MIN, PEERS_MIN = 25.0, 15.0
FLIP_NS_MAX = 60.0
SLOW_EVERY = 4
FLIPS, WEIGHT_BYTES = 200_000, 1 << 28

MEMORY = """
from pathlib import Path
import numpy as np
def peak_bytes():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
from monkeyproof.faults.data import {fault}, corrupt
table = np.random.default_rng(1).normal(size=({rows}, 20))
corrupt(table[:20000], {fault}(share={share}), seed=1)
before = peak_bytes()
found = corrupt(table, {fault}(share={share}), seed=1)
print(peak_bytes() - before, found.applied[0].cells_count)
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """One line of the issue: what was found, and what it has to be."""

    what: str
    found: float
    at_most: bool
    bound: float

    @property
    def is_met(self) -> bool:
        return self.found <= self.bound if self.at_most else self.found >= self.bound


def naive(cells: Any) -> None:
    for index in random.sample(range(len(cells)), int(len(cells) * SHARE)):
        cells[index] *= random.uniform(-10, 10)


Corrupted = Callable[[str, Any], Any]
"""From a column's name and the table that it stands in to the table with that column corrupted."""


def both_ways(what: str, corrupted: Corrupted, frame: pd.DataFrame) -> Iterator[tuple[str, Callable[[], object]]]:
    """A peer that corrupts one column, on all of them."""
    columns = [(str(name), frame[[name]].copy()) for name in frame]

    def usual() -> None:
        found = frame
        for name, _ in columns:
            found = corrupted(name, found)

    yield f"{what}, usual", usual
    yield f"{what}, by column", lambda: [corrupted(name, one) for name, one in columns]


def tab_err(what: str, kind: Any, frame: pd.DataFrame) -> Iterator[tuple[str, Callable[[], object]]]:
    from tab_err import ErrorModel, error_mechanism
    from tab_err.api import MidLevelConfig, low_level, mid_level

    chance = error_mechanism.ECAR()
    every = MidLevelConfig({str(name): [ErrorModel(chance, kind, SHARE)] for name in frame})

    def corrupted(name: str, one: Any) -> Any:
        return low_level.create_errors(one, name, SHARE, chance, kind)[0]

    yield from both_ways(what, corrupted, frame)
    yield f"{what}, one call", lambda: mid_level.create_errors(frame, every)


def peers(table: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Those that are installed; each does the whole table."""
    frame = pd.DataFrame(table, columns=[f"c{column}" for column in range(table.shape[1])])
    try:
        from jenga.corruptions.generic import MissingValues
        from jenga.corruptions.numerical import Scaling
    except ImportError:
        print("jenga: not installed, not timed")
    else:
        yield from both_ways("jenga missing", lambda name, one: MissingValues(name, SHARE).transform(one), frame)
        yield from both_ways("jenga scale", lambda name, one: Scaling(name, SHARE).transform(one), frame)
    try:
        from tab_err import error_type
    except ImportError:
        print("tab-err: not installed, not timed")
    else:
        yield from tab_err("tab-err missing", error_type.MissingValue(), frame)
        yield from tab_err("tab-err scale", error_type.WrongUnit(), frame)
    try:
        from badgers.generators.tabular_data.missingness import MissingCompletelyAtRandom
    except ImportError:
        print("badgers: not installed, not timed")
    else:
        generator = MissingCompletelyAtRandom(np.random.default_rng(1))
        # It writes into what it is given, so it gets a copy.
        yield "badgers missing", lambda: generator.generate(frame.copy(), None, percentage_missing=SHARE)


def compiled(table: Any, workspace: Workspace) -> Iterator[tuple[str, Callable[[], object]]]:
    try:
        corrupt(table[:10], Missing(share=SHARE), seed=1, engine="numba")
    except UsageError as error:
        print(f"{error}: not timed")
        return
    yield "numba missing", lambda: corrupt(table, Missing(share=SHARE), seed=1, out=workspace, engine="numba")
    yield "numba scale", lambda: corrupt(table, Scale(share=SHARE), seed=1, out=workspace, engine="numba")


def flip_weights(weights: Any, rng: np.random.Generator) -> None:
    """Choose bits, and flip them, in place."""
    flips = random_bits(weights, FLIPS, rng)
    flips.apply(weights)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the corruption of a table.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    table = np.random.default_rng(1).normal(size=(arguments.rows, 20))
    copy, workspace, arrow_room = np.empty_like(table), Workspace(), Workspace()
    names = list("abcdefghijklmnopqrst")
    batch = pa.RecordBatch.from_arrays([pa.array(np.ascontiguousarray(column)) for column in table.T], names)
    frame = pd.DataFrame(np.asfortranarray(table))
    loop, weights = table.reshape(-1).copy(), np.ones(WEIGHT_BYTES // 4, np.float32)
    rng = np.random.default_rng(1)
    timed: dict[str, Callable[[], object]] = {
        "warm copy": lambda: np.copyto(copy, table),
        "missing": lambda: corrupt(table, Missing(share=SHARE), seed=1, out=workspace),
        "scale": lambda: corrupt(table, Scale(share=SHARE), seed=1, out=workspace),
        "noise": lambda: corrupt(table, Noise(share=SHARE, sd=1), seed=1, out=workspace),
        **dict(compiled(table, workspace)),
        "arrow nulls": lambda: corrupt(batch, Missing(share=SHARE), seed=1),
        "arrow scale": lambda: corrupt(batch, Scale(share=SHARE), seed=1, out=arrow_room),
        "fresh copy": table.copy,
        "fresh scale": lambda: corrupt(table, Scale(share=SHARE), seed=1),
        "fresh pandas": lambda: corrupt(frame, Scale(share=SHARE), seed=1),
        "weights": lambda: flip_weights(weights, rng),
    }
    slow = {"naive loop": lambda: naive(loop), **dict(peers(table))}
    times_s: dict[str, list[float]] = {name: [] for name in timed | slow}
    for number in range(arguments.rounds + 1):
        for name, run in (timed | (slow if number % SLOW_EVERY == 1 else {})).items():
            gc.collect()
            begun_s = time.perf_counter()
            run()
            if number:  # The first round warms up.
                times_s[name].append(time.perf_counter() - begun_s)
    report(times_s, arguments.rows)
    bounds = list(bounds_of({name: statistics.median(found) for name, found in times_s.items()}, arguments.rows))
    for bound in bounds:
        which = "<=" if bound.at_most else ">="
        print(
            f"{bound.what:36} {bound.found:8.2f} {which} {bound.bound:5g}  {'met' if bound.is_met else 'NOT MET'}"
        )
    return 0 if all(bound.is_met for bound in bounds) else 1


def report(times_s: dict[str, list[float]], rows: int) -> None:
    warm_s = statistics.median(times_s["warm copy"])
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{rows} rows x 20 float64, {SHARE:.0%} of the cells; {os.cpu_count()} cores, load {load}")
    print(f"{'':26} {'median ms':>10} {'best ms':>10} {'copies':>8} {'rounds':>7}")
    for name, found in times_s.items():
        if found:
            median_s = statistics.median(found)
            copies = f"{median_s / warm_s:8.2f}"
            print(f"{name:26} {median_s * 1e3:10.1f} {min(found) * 1e3:10.1f} {copies} {len(found):7}")


def bounds_of(medians_s: dict[str, float], rows: int) -> Iterator[Bound]:
    for name, most in COPIES_MAX.items():
        if name in medians_s:
            yield Bound(f"{name}, in copies", medians_s[name] / medians_s["warm copy"], True, most)
    yield Bound("naive loop / scale", medians_s["naive loop"] / medians_s["scale"], False, NAIVE_MIN)
    for name in medians_s:
        if name.startswith(("jenga", "tab-err")):
            ours = name.partition(",")[0].split()[-1]
            yield Bound(f"{name} / {ours}", medians_s[name] / medians_s[ours], False, PEERS_MIN)
    yield Bound("weights, ns a flipped bit", medians_s["weights"] / FLIPS * 1e9, True, FLIP_NS_MAX)
    for fault in ("Missing", "Scale"):
        extra_bytes, cells = memory(fault, rows)
        most = 1.05 * rows * 160 + rows * 20 / 8 + 16 * cells
        yield Bound(f"extra memory, {fault.lower()}, of bound", extra_bytes / most, True, 1.0)


def memory(fault: str, rows: int) -> tuple[int, int]:
    """Peak bytes on top of the table, of a process of its own that corrupts it once; and cells changed."""
    code = MEMORY.format(fault=fault, rows=rows, share=SHARE)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    extra_bytes, cells = map(int, found.split())
    return extra_bytes, cells


if __name__ == "__main__":
    sys.exit(main())

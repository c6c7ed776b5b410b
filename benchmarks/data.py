"""Corrupting a tenth of a million rows of twenty numbers: against a copy, the naive loop, and peers.

    python benchmarks/data.py [--rows 1000000] [--rounds 9]

Everything is timed in turn, round by round, in one process, so that a neighbour's noise meets all alike; printed
are medians and their ratio to that of a warm copy of the table. Peers (jenga, tab-err, badgers) are timed where
they can be imported. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from monkeyproof.faults.data import Missing, Noise, Scale, corrupt

SHARE = 0.1
COPIES_MAX = {"missing": 5.0, "scale": 5.0, "arrow nulls": 2.0}
NAIVE_MIN, PEERS_MIN = 25.0, 15.0
NAIVE_PART = 20
"""The naive loop takes seconds: it is timed on a part of the rows, and counted so many times."""


def naive(column_major: Any) -> None:
    for column in column_major:
        for index in random.sample(range(len(column)), int(len(column) * SHARE)):
            column[index] *= random.uniform(-10, 10)


def peers(table: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Those that are installed; each does the whole table."""
    frame = pd.DataFrame(table, columns=[f"c{column}" for column in range(table.shape[1])])
    try:
        from jenga.corruptions.numerical import Scaling
    except ImportError:
        print("jenga: not installed, not timed")
    else:
        yield "jenga scale", lambda: [Scaling(name, SHARE).transform(frame) for name in frame]
    try:
        from tab_err import ErrorMechanism, error_mechanism, error_type
        from tab_err.api import low_level
    except ImportError:
        print("tab-err: not installed, not timed")
    else:
        del ErrorMechanism

        def tab_err() -> None:
            for name in frame:
                low_level.create_errors(frame, name, SHARE, error_mechanism.ECAR(), error_type.MissingValue())

        yield "tab-err missing", tab_err
    try:
        from badgers.generators.tabular_data.missingness import MissingCompletelyAtRandom
    except ImportError:
        print("badgers: not installed, not timed")
    else:
        yield (
            "badgers missing",
            lambda: MissingCompletelyAtRandom(np.random.default_rng(1)).generate(frame.copy(), None, SHARE),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the corruption of a table.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    table = np.random.default_rng(1).normal(size=(arguments.rows, 20))
    copy = np.empty_like(table)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(np.ascontiguousarray(column)) for column in table.T], list("abcdefghijklmnopqrst")
    )
    frame = pd.DataFrame(np.asfortranarray(table))
    loop = [column[: arguments.rows // NAIVE_PART].copy() for column in table.T]
    timed: dict[str, Callable[[], object]] = {
        "warm copy": lambda: np.copyto(copy, table),
        "fresh copy": table.copy,
        "missing": lambda: corrupt(table, Missing(share=SHARE), seed=1, out=copy),
        "scale": lambda: corrupt(table, Scale(share=SHARE), seed=1, out=copy),
        "noise": lambda: corrupt(table, Noise(share=SHARE, sd=1), seed=1, out=copy),
        "fresh scale": lambda: corrupt(table, Scale(share=SHARE), seed=1),
        "pandas scale": lambda: corrupt(frame, Scale(share=SHARE), seed=1),
        "arrow nulls": lambda: corrupt(batch, Missing(share=SHARE), seed=1),
        "arrow scale": lambda: corrupt(batch, Scale(share=SHARE), seed=1),
        "naive loop": lambda: naive(loop),
        **dict(peers(table)),
    }
    times_s: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(arguments.rounds + 1):
        for name, run in timed.items():
            gc.collect()
            begun_s = time.perf_counter()
            run()
            taken_s = time.perf_counter() - begun_s
            if number:  # The first round warms up.
                times_s[name].append(taken_s * (NAIVE_PART if name == "naive loop" else 1))
    medians_s = {name: statistics.median(found) for name, found in times_s.items()}
    print(f"{'':18} {'ms':>8} {'copies':>8}   (medians of {arguments.rounds}, {arguments.rows} rows x 20)")
    for name, median_s in medians_s.items():
        print(f"{name:18} {median_s * 1e3:8.1f} {median_s / medians_s['warm copy']:8.2f}")
    return 1 if list(missed(medians_s)) else 0


def missed(medians_s: dict[str, float]) -> Iterator[str]:
    """Bounds that are not kept; printed too."""
    bounds = [(name, medians_s[name] / medians_s["warm copy"], "<=", most) for name, most in COPIES_MAX.items()]
    bounds.append(("naive / scale", medians_s["naive loop"] / medians_s["scale"], ">=", NAIVE_MIN))
    for name in medians_s:
        if name.startswith(("jenga", "tab-err")):
            ours = name.split()[-1]
            bounds.append((f"{name} / {ours}", medians_s[name] / medians_s[ours], ">=", PEERS_MIN))
    for name, found, which, bound in bounds:
        ok = found <= bound if which == "<=" else found >= bound
        print(f"{name}: {found:.2f}, {which} {bound:g}: {'ok' if ok else 'MISSED'}")
        if not ok:
            yield name


if __name__ == "__main__":
    sys.exit(main())

"""Which rounds tests/torture/torture.py plays: everything that is random in them comes from one generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torture_faults import FAULTS_OF, is_leased

from monkeyproof.targets.port import LEASE_S

KILLS = ("worker", "groups", "campaign", "watchdog", "watchdog+worker", "healer")
STOP = "stop"
KILLS_A_STOP = 10
"""One stop for so many kills: it takes as long as a lease, and what it shows is always the same."""
LOOKS_S = 1.0
"""A lease is renewed before the worker stops, never after it; this is for the looking."""


@dataclass(frozen=True, slots=True)
class Case:
    """One round, as drawn."""

    family: str
    fault: str
    kind: str
    healer: str
    of_fault: bool
    """Whether the instant counts from the fault's intent; else from the worker's start."""
    after_s: float

    @property
    def bound_s(self) -> float:
        return LEASE_S + LOOKS_S if self.kind == STOP else LEASE_S


def cases(
    rng: np.random.Generator, families: Sequence[str], kinds: Sequence[str], kills_count: int
) -> Iterator[Case]:
    """The families take turns, and so do, within each, the kinds and the faults."""
    kills = [kind for kind in kinds if kind != STOP]
    for number in range(kills_count if kills else 0):
        for place, family in enumerate(families):
            faults = list(FAULTS_OF[family])
            # One further after each turn of the kinds, so that every fault meets every kind in the end.
            fault = faults[(number + number // len(kills)) % len(faults)]
            yield _drawn(rng, family, fault, kills[(number + place) % len(kills)])
        if STOP in kinds and number % KILLS_A_STOP == KILLS_A_STOP - 1:
            yield from _stops(rng, families, number // KILLS_A_STOP)
    if STOP in kinds and kills_count < KILLS_A_STOP:
        yield from _stops(rng, families, 0)


def _stops(rng: np.random.Generator, families: Sequence[str], number: int) -> Iterator[Case]:
    for family in families:
        if leased := [fault for fault in FAULTS_OF[family] if is_leased(family, fault)]:
            yield _drawn(rng, family, leased[number % len(leased)], STOP)


def _drawn(rng: np.random.Generator, family: str, fault: str, kind: str) -> Case:
    """Most while a fault is there or just comes or goes; the others at any time before."""
    of_fault = kind == STOP or bool(rng.random() < 0.85)
    # A watchdog that is gone is missed within a second: the fault should still be there then.
    latest_s = 1.5 if kind in (STOP, "watchdog", "healer") else 3.0 if of_fault else 2.0
    after_s = float(rng.uniform(0.0, latest_s))
    healer = "elephant" if kind == "healer" or rng.random() < 0.25 else "none"
    return Case(family, fault, kind, healer, of_fault, after_s)

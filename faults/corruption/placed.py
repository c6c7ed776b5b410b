"""Chance by place: numbers that depend on a seed, a purpose and an absolute position alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monkeyproof.faults.corruption.random import Draws, draws_at, key_of, rows_from


def draws_for(seed: int, purpose: str, positions: NDArray[np.uint64]) -> Draws:
    """The data engine's draws, one for each position."""
    rows = rows_from(len(positions), positions=positions)
    return draws_at(key_of(seed, purpose, ""), rows, np.arange(len(positions)))


def uniform_at(seed: int, purpose: str, positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), one for each position; independent of what ``draws_for`` gives for that purpose."""
    return draws_for(seed, f"{purpose}#chance", positions).uniform(1)

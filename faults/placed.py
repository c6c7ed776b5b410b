"""Chance by place: numbers that depend on a seed, a purpose and an absolute position alone."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform_at(seed: int, purpose: str, positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), in steps of 2**-53, one for each position.

    SplitMix64 of key and position: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA
    2014), with the constants of Vigna's public-domain splitmix64.c.
    """
    digest = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=8, person=b"mp.placed").digest()
    z = positions.astype(np.uint64) * _GOLDEN + np.uint64(int.from_bytes(digest, "little"))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53

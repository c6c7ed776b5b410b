"""Counter-based random numbers of the fault proxy: each depends on its arguments alone, not on earlier draws."""

from __future__ import annotations

import functools

from monkeyproof.errors import UsageError

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15

# Streams: the harness's own requests draw from streams of their own, so that proving a fault does not change
# which of the users' requests it hits.
CHOSEN, AMOUNT = 0, 1
OWN = 2
PLACE = 4
_CONNECTION = 8


def splitmix64(x: int) -> int:
    """One output of SplitMix64 for the state ``x``: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), with the constants of Vigna's public-domain splitmix64.c."""
    z = (x + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, stream: int, n: int) -> float:
    """A number in [0, 1) that depends on its three arguments alone."""
    return (splitmix64(_key(seed, stream) + n * _GAMMA) >> 11) * 2.0**-53


@functools.lru_cache(1024)
def _key(seed: int, stream: int) -> int:
    return splitmix64(splitmix64(seed & _MASK) ^ stream)


def chosen(seed: int, share: float, n: int, *, own: bool = False) -> bool:
    """Whether request (or connection) ``n`` is one of the ``share`` that is hit."""
    return share >= 1 or uniform(seed, (OWN if own else 0) + CHOSEN, n) < share


def of_connection(number: int, what: int) -> int:
    """A stream that belongs to one connection."""
    return (number + 1) * _CONNECTION + what


def check(ok: bool, kind: str, why: str) -> None:
    """Raises UsageError if a toxic's parameters are not ``ok``."""
    if not ok:
        raise UsageError(f"{kind}: {why}")
